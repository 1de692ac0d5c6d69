"""The held-out scenes, each once. Records of the test split repeat: of one object on a 2×2 grid there are 24 scenes."""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterator

from omniimage.data import scenes
from omniimage.data.scenes import Scene, SceneObject
from omniimage.data.sources import SCENES
from omniimage.settings import ScenesSettings


def distinct_scenes(world: ScenesSettings) -> Iterator[tuple[int, Scene]]:
  """(record, scene) of the test split in order, every scene at its first record alone; ends where no other is left."""
  objects = {"min_objects": world.min_objects, "max_objects": world.max_objects}
  seen, found = set(), Counter()
  for record in range(SCENES["test"]):
    count = scenes.num_objects_of(record, **objects)
    if found[count] == _held_out(world.grid, count):
      continue
    scene = scenes.scene_of(record, "test", grid=world.grid, **objects)
    if scene not in seen:
      seen.add(scene)
      found[count] += 1
      yield record, scene


@functools.cache
def _held_out(grid: int, count: int) -> float:
  """How many scenes of so many objects the test split has: counted for one object, of more there are thousands."""
  if count > 1:
    return math.inf
  places = itertools.product(scenes.SHAPES, scenes.COLORS, scenes.SIZES, range(grid), range(grid))
  return sum(scenes.split_of(Scene(grid, (SceneObject(*place),))) == "test" for place in places)
