"""Held-out scenes, each once: as many as there are, in the order of the test split."""

import itertools

import pytest

from omniimage.data import scenes
from omniimage.data.distinct import distinct_scenes
from omniimage.settings import ScenesSettings


@pytest.mark.parametrize("grid, there_are", [(2, 24), (3, 60), (4, 117), (5, 163)])
def test_a_world_of_one_object_has_no_more_scenes_than_there_are(grid, there_are):
  found = [scene for _, scene in distinct_scenes(ScenesSettings("scenes", grid, 1, 1))]
  assert len(found) == len(set(found)) == there_are
  assert all(scenes.split_of(scene) == "test" for scene in found)


def test_records_of_the_test_split_come_in_order_without_those_that_repeat():
  world = ScenesSettings("scenes", 2, 1, 4)
  found = list(itertools.islice(distinct_scenes(world), 300))
  assert len({scene for _, scene in found}) == 300
  last, _ = found[-1]
  every = [scenes.scene_of(record, "test", grid=2, min_objects=1, max_objects=4) for record in range(last + 1)]
  first = {scene: record for record, scene in reversed(list(enumerate(every)))}
  assert found == sorted(((record, scene) for scene, record in first.items()), key=lambda item: item[0])


def test_once_the_scenes_of_one_object_are_used_up_larger_ones_take_their_place():
  world = ScenesSettings("scenes", 2, 1, 2)
  counts = [len(scene.objects) for _, scene in itertools.islice(distinct_scenes(world), 400)]
  assert counts.count(1) == 24 and counts.count(2) == 376
