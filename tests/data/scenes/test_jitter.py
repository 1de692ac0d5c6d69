"""Objects beside the centers of their cells: drawn whole, read exactly, and kept in their places by every task."""

import itertools

import numpy as np
import pytest

from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.data.scenes.grader import grade_many, score
from omniimage.data.scenes.outlines import outlines
from omniimage.data.scenes.tasks import TASKS
from omniimage.data.scenes.world import (
  KINDS,
  SIZES,
  Jitter,
  Scene,
  SceneObject,
  World,
  object_of,
  offsets,
  render,
  scene_of,
)
from tests.data.scenes.test_grader import bound_share, through_jpeg, with_noise


def jittered(n: int, grid: int, image_size: int, jitter: int, split: str = "train", least: int = 1) -> list[Scene]:
  numbers = {"grid": grid, "min_objects": least, "max_objects": grid**2}
  return [scene_of(i, split, **numbers, jitter=jitter) for i in range(n)]


def at(kind: int, down: int, right: int, jitter: int) -> Scene:
  """An object in the first cell of a 2×2 scene of 32 pixels, so many pixels from its center."""
  item = object_of(kind, 0, 0)
  there = offsets(item.size, jitter, 32, 2)
  draws = np.full((2, 2, 2), 0.5)
  draws[0, 0] = [(there.index(shift) + 0.5) / len(there) for shift in (down, right)]
  return Scene(2, (item,), Jitter(jitter, draws))


def everywhere(jitter: int) -> list[Scene]:
  """Every kind of object at every place that it may have in a cell of 16 pixels."""
  scenes = []
  for kind, (_, size, _) in enumerate(KINDS):
    there = offsets(size, jitter, 32, 2)
    scenes += [at(kind, down, right, jitter) for down, right in itertools.product(there, there)]
  return scenes


def test_an_object_has_the_room_that_its_cell_leaves():
  assert offsets("small", 9, 80, 5) == range(-3, 4) and offsets("large", 9, 80, 5) == range(-1, 2)
  assert offsets("small", 2, 80, 5) == range(-2, 3) and offsets("small", 0, 80, 5) == range(1)
  assert offsets("large", 9, 100, 4) == range(-2, 3), "it may touch the edge of its cell"
  assert offsets("large", 9, 33, 2) == range(1), "half a pixel of a cell may be lost"


@pytest.mark.parametrize("kind", range(0, len(KINDS), 8))
def test_what_stands_elsewhere_is_the_same_picture_moved_by_whole_pixels(kind):
  centered = render(at(kind, 0, 0, 3), 32)[:16, :16]
  for down, right in itertools.product(offsets(KINDS[kind][1], 3, 32, 2), repeat=2):
    moved = render(at(kind, down, right, 3), 32)
    assert np.array_equal(moved[:16, :16], np.roll(centered, (down, right), (0, 1)))
    assert (moved[16:] == moved[-1, -1]).all() and (moved[:, 16:] == moved[-1, -1]).all()


def test_every_object_at_every_place_of_a_cell_is_told_from_all_others():
  """Cells are graded one by one, so this is all that scenes of such cells can show."""
  scenes = everywhere(3)
  assert len(scenes) == 64 * (49 + 9)
  graded = grade_many(np.stack([render(scene, 32) for scene in scenes]), 2, World(2, 32, 3).shifts)
  assert [seen.scene for seen in graded] == scenes
  assert not any(seen.unclear for seen in graded) and max(seen.residuals.max() for seen in graded) < 0.003


# (pictures, cells of a side, pixels, jitter), also of cells that are not whole pixels wide.
@pytest.mark.parametrize(
  "n, grid, image_size, jitter", [(100, 5, 80, 3), (600, 5, 80, 1), (500, 2, 32, 3), (300, 3, 50, 2), (200, 4, 100, 2)]
)
def test_the_grader_is_right_on_every_true_picture(n, grid, image_size, jitter):
  scenes = jittered(n, grid, image_size, jitter)
  graded = grade_many(
    np.stack([render(scene, image_size) for scene in scenes]), grid, World(grid, image_size, jitter).shifts
  )
  assert [seen.scene for seen in graded] == scenes and not any(seen.unclear for seen in graded)


@pytest.mark.parametrize("jitter", [1, 3])
def test_noise_and_jpeg_do_not_mislead_the_grader(jitter):
  scenes, shifts = jittered(50, 5, 80, jitter, least=20), World(5, 80, jitter).shifts
  images = np.stack([render(scene, 80) for scene in scenes])
  assert bound_share(scenes, with_noise(images, 0.05), shifts) >= 0.99
  # JPEG smears the edges of what does not lie on its blocks; nothing is taken for anything else.
  compressed = np.stack([through_jpeg(image) for image in images])
  assert bound_share(scenes, compressed, shifts) >= 0.98
  seen = grade_many(compressed, 5, shifts)
  assert all(set(score(scene, one).mistakes) <= {"unclear"} for scene, one in zip(scenes, seen))


def test_no_blend_of_two_objects_at_places_of_their_own_is_an_object():
  rng, scenes = np.random.default_rng(0), everywhere(1)
  first, second = rng.integers(len(scenes), size=(2, 1500))
  apart = [scenes[i].objects != scenes[j].objects for i, j in zip(first, second)]
  images = np.stack([render(scene, 32) for scene in scenes]) / np.float32(127.5) - 1
  blends = ((images[first] + images[second]) / 2)[apart]
  graded = grade_many(blends, 2, World(2, 32, 1).shifts)
  assert all(seen.unclear == ((0, 0),) and not seen.scene.objects for seen in graded)


def test_pictures_of_another_resolution_are_graded_at_the_same_places():
  scenes = jittered(20, 3, 48, 2)
  large = np.stack([render(Scene(3, s.objects, _twice(s)), 96) for s in scenes])
  graded = grade_many(large, 3, World(3, 48, 2).shifts)
  assert all(score(scene, seen).exact for scene, seen in zip(scenes, graded))


def _twice(scene: Scene) -> Jitter:
  """Places at twice the resolution that are those of a scene of 48 pixels."""
  draws = np.full((3, 3, 2), 0.5)
  for item in scene.objects:
    there = offsets(item.size, 4, 96, 3)
    draws[item.cell] = [(there.index(2 * shift) + 0.5) / len(there) for shift in scene.jitter.offset(item, 48, 3)]
  return Jitter(4, draws)


# --------------------------------------------------------------------------------------------------------------- tasks


@pytest.mark.parametrize("name", TASKS)
def test_the_own_answer_of_every_task_is_right(name):
  task = TASKS[name](World(5, 80, 3))
  for index, scene in enumerate(jittered(6, 5, 80, 3, "test", least=20)):
    turns = task.turns(scene, np.random.default_rng(index))
    assert [t.text for t in turns if isinstance(t, TextTurn)] == task.texts(scene, np.random.default_rng(index))
    expected = task.grader.expected(turns)
    if name == "conversation":
      answer = np.stack([turn.image for turn in turns if isinstance(turn, ImageTurn)])
      assert all(one.exact for one in task.grader.score(expected, task.grader.grade(answer)))
      continue
    answer = [turns[-1].text] if isinstance(turns[-1], TextTurn) else turns[-1].image[None]
    (graded,) = task.grader.grade(answer)
    found = task.grader.score(expected, graded)
    assert found if name == "questions" else found.exact


@pytest.mark.parametrize("name", ["edit", "conversation"])
def test_what_an_edit_keeps_stays_where_it_is(name):
  task, moved = TASKS[name](World(3, 48, 3)), 0
  for index, scene in enumerate(jittered(40, 3, 48, 3)):
    images = [turn.image for turn in task.turns(scene, np.random.default_rng(index)) if isinstance(turn, ImageTurn)]
    graded = grade_many(np.stack(images), 3, World(3, 48, 3).shifts)
    for (before, one), (after, other) in itertools.pairwise(zip(images, graded)):
      for item in set(one.scene.objects) & set(other.scene.objects):
        cell = tuple(slice(16 * place, 16 * place + 16) for place in item.cell)
        assert np.array_equal(before[cell], after[cell])
        centered = render(Scene(3, (item,)), 48)[cell]
        moved += not np.array_equal(before[cell], centered)
  assert moved > 50


def test_a_change_of_color_or_shape_leaves_an_object_where_it_stands():
  star = SceneObject("star", "red", "small", 1, 0)
  jitter = Jitter(3, np.random.default_rng(0).random((2, 2, 2)))
  places = {jitter.offset(SceneObject(shape, color, "small", 1, 0), 32, 2) for shape, _, color in KINDS}
  assert places == {jitter.offset(star, 32, 2)}


def test_sketches_stand_where_their_scenes_do():
  for scene in jittered(20, 3, 96, 4):
    inside = (render(scene, 96) != render(Scene(3, ()), 96)).any(-1)
    drawn = (outlines(scene, 96) != render(Scene(3, ()), 96)).any(-1)
    assert not (drawn & ~inside).any() and 0.2 < drawn.sum() / inside.sum() < 0.95


def test_where_objects_stand_is_drawn_evenly_and_once_a_record():
  scenes = jittered(300, 2, 32, 3, least=4)
  small = [item for scene in scenes for item in scene.objects if item.size == "small"]
  places = [scene.jitter.offset(item, 32, 2)[0] for scene in scenes for item in scene.objects if item.size == "small"]
  counts = np.unique(places, return_counts=True)[1]
  assert len(counts) == 7 and counts.min() > len(small) / 7 / 2
  again = jittered(300, 2, 32, 3, least=4)
  assert all(np.array_equal(one.jitter.draws, other.jitter.draws) for one, other in zip(scenes, again))
  plain = [scene_of(i, "train", grid=2, min_objects=4, max_objects=4) for i in range(300)]
  assert scenes == plain and {hash(scene) for scene in scenes} == {hash(scene) for scene in plain}
  assert set(SIZES) == {"small", "large"}
