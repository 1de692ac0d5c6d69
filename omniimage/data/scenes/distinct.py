"""The scenes of a split, each once. Records repeat: of one object on a 2×2 grid the test split has 24 scenes."""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterator

from omniimage.data.scenes.world import COLORS, SHAPES, SIZES, Scene, SceneObject, num_objects_of, scene_of, split_of


def distinct_scenes(
  split: str, records: int, *, grid: int, min_objects: int, max_objects: int
) -> Iterator[tuple[int, Scene]]:
  """(record, scene) of the first `records` records in order, every scene at its first record alone; ends where no other
  is left."""
  objects = {"min_objects": min_objects, "max_objects": max_objects}
  seen, found = set(), Counter()
  for record in range(records):
    count = num_objects_of(record, **objects)
    if found[count] == _there_are(split, grid, count):
      continue
    scene = scene_of(record, split, grid=grid, **objects)
    if scene not in seen:
      seen.add(scene)
      found[count] += 1
      yield record, scene


@functools.cache
def _there_are(split: str, grid: int, count: int) -> float:
  """How many scenes of so many objects a split has: counted for one object, of more there are thousands."""
  if count > 1:
    return math.inf
  places = itertools.product(SHAPES, COLORS, SIZES, range(grid), range(grid))
  return sum(split_of(Scene(grid, (SceneObject(*place),))) == split for place in places)
