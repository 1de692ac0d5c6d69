"""The scenes of a split, each once. Records repeat: of one object on a 2×2 grid the test split has 24 scenes."""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterator

from omniimage.data.scenes.world import (
  KINDS,
  NOTHING_ELSE,
  HeldOut,
  Scene,
  num_objects_of,
  object_of,
  scene_of,
)


def distinct_scenes(
  split: str,
  records: int,
  *,
  grid: int,
  min_objects: int,
  max_objects: int,
  held_out: HeldOut = NOTHING_ELSE,
  jitter: int = 0,
) -> Iterator[tuple[int, Scene]]:
  """(record, scene) of the first `records` records in order, every scene at its first record alone; ends where no other
  is left."""
  objects = {"min_objects": min_objects, "max_objects": max_objects}
  seen, found = set(), Counter()
  for record in range(records):
    count = num_objects_of(record, **objects)
    if found[count] == _there_are(split, grid, count, held_out):
      continue
    scene = scene_of(record, split, grid=grid, **objects, held_out=held_out, jitter=jitter)
    if scene not in seen:
      seen.add(scene)
      found[count] += 1
      yield record, scene


@functools.cache
def _there_are(split: str, grid: int, count: int, held_out: HeldOut) -> float:
  """How many scenes of so many objects a split has: counted for one object, of more there are thousands."""
  if count > 1:
    return math.inf
  places = itertools.product(range(len(KINDS)), range(grid), range(grid))
  return sum(held_out.split_of(Scene(grid, (object_of(*place),))) == split for place in places)
