"""Scenes of a split, each once: as many as there are, in the order of its records."""

import itertools

import pytest

from omniimage.data.scenes.distinct import distinct_scenes
from omniimage.data.scenes.world import scene_of, split_of

RECORDS = 2**14


@pytest.mark.parametrize("grid, there_are", [(2, 24), (3, 60), (4, 117), (5, 163)])
def test_a_world_of_one_object_has_no_more_scenes_than_there_are(grid, there_are):
  found = [scene for _, scene in distinct_scenes("test", RECORDS, grid=grid, min_objects=1, max_objects=1)]
  assert len(found) == len(set(found)) == there_are
  assert all(split_of(scene) == "test" for scene in found)


def test_records_of_the_test_split_come_in_order_without_those_that_repeat():
  world = {"grid": 2, "min_objects": 1, "max_objects": 4}
  found = list(itertools.islice(distinct_scenes("test", RECORDS, **world), 300))
  assert len({scene for _, scene in found}) == 300
  last, _ = found[-1]
  every = [scene_of(record, "test", **world) for record in range(last + 1)]
  first = {scene: record for record, scene in reversed(list(enumerate(every)))}
  assert found == sorted(((record, scene) for scene, record in first.items()), key=lambda item: item[0])


def test_once_the_scenes_of_one_object_are_used_up_larger_ones_take_their_place():
  world = {"grid": 2, "min_objects": 1, "max_objects": 2}
  counts = [len(scene.objects) for _, scene in itertools.islice(distinct_scenes("test", RECORDS, **world), 400)]
  assert counts.count(1) == 24 and counts.count(2) == 376
