"""The scenes world: which scenes there are, and how they are drawn."""

import dataclasses

import numpy as np
import pytest

from omniimage.data.scenes import world
from omniimage.data.scenes.world import Scene, SceneObject, render, scene_of

RED_STAR = SceneObject("star", "red", "large", 0, 0)
KINDS = [(shape, color, size) for shape in world.SHAPES for color in world.COLORS for size in world.SIZES]


def drawn(grid: int, num_objects: int, n: int, seed: int = 0) -> list[Scene]:
  rng = np.random.default_rng(seed)
  return [world.draw_scene(rng, grid, num_objects) for _ in range(n)]


# --------------------------------------------------------------------------------------------------------------- scenes


@pytest.mark.parametrize("name, value", [("shape", "hexagon"), ("color", "orange"), ("size", "huge")])
def test_an_unknown_attribute_is_named_with_the_known_ones(name, value):
  with pytest.raises(ValueError, match=f"unknown {name} '{value}'; expected one of .*{getattr(RED_STAR, name)}"):
    dataclasses.replace(RED_STAR, **{name: value})


@pytest.mark.parametrize(
  "grid, objects, message",
  [
    (6, (), r"grid is 6; expected one of \(2, 3, 4, 5\)"),
    (2, (dataclasses.replace(RED_STAR, column=2),), "outside the 2x2 grid"),
    (2, (dataclasses.replace(RED_STAR, row=-1),), "outside the 2x2 grid"),
    (2, (RED_STAR, dataclasses.replace(RED_STAR, color="blue")), "two objects in row 0, column 0"),
  ],
)
def test_an_impossible_scene_is_refused_in_words(grid, objects, message):
  with pytest.raises(ValueError, match=message):
    Scene(grid, objects)


def test_a_scene_does_not_depend_on_the_order_of_its_objects():
  other = SceneObject("ring", "blue", "small", 0, 1)
  assert Scene(2, (other, RED_STAR)) == Scene(2, (RED_STAR, other))
  assert Scene(2, (other, RED_STAR)).objects == (RED_STAR, other)


def test_a_record_is_the_same_scene_every_time_and_on_every_machine():
  settings = dict(grid=2, min_objects=1, max_objects=4)
  assert scene_of(1, "train", **settings) == Scene(
    2, (SceneObject("cross", "black", "large", 0, 0), SceneObject("cross", "pink", "large", 1, 0))
  )
  assert scene_of(1, "test", **settings) == Scene(
    2, (SceneObject("ring", "green", "small", 1, 0), SceneObject("star", "red", "large", 1, 1))
  )
  assert scene_of(np.int64(1), "train", **settings) == scene_of(1, "train", **settings)
  scenes_of_records = {scene_of(index, "train", **settings) for index in range(3, 400, 4)}
  assert len(scenes_of_records) == 100  # four objects: no two records alike


def test_the_split_of_a_scene_never_changes():
  kinds = [
    ("star", "red", "large"),
    ("ring", "black", "small"),
    ("heart", "pink", "small"),
    ("circle", "purple", "large"),
  ]
  found = [world.split_of(Scene(2, (SceneObject(*kind, row, 0),))) for kind in kinds for row in (0, 1)]
  assert found == ["train", "train", "train", "train", "train", "test", "test", "train"]


@pytest.mark.parametrize("low, high", [(1, 4), (2, 2), (3, 9)])
def test_the_number_of_objects_is_known_without_drawing(low, high):
  for index in range(20):
    expected = low + index % (high - low + 1)
    assert world.num_objects_of(index, min_objects=low, max_objects=high) == expected
    assert len(scene_of(index, "train", grid=3, min_objects=low, max_objects=high).objects) == expected


def test_no_scene_is_in_both_splits_and_every_scene_is_in_one():
  singles = [Scene(2, (SceneObject(*kind, row, column),)) for kind in KINDS for row in (0, 1) for column in (0, 1)]
  of_split = {split: {scene for scene in singles if world.split_of(scene) == split} for split in ("train", "test")}
  assert 10 <= len(of_split["test"]) <= 45  # 512 / 20
  for split, num_records in (("train", 5000), ("test", 500)):
    records = {scene_of(index, split, grid=2, min_objects=1, max_objects=1) for index in range(num_records)}
    assert records == of_split[split]


def test_one_scene_in_twenty_is_held_out():
  share = np.mean([world.split_of(scene) == "test" for scene in drawn(3, 4, 4000)])
  assert 0.04 < share < 0.06


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(split="dev"), "unknown split 'dev'; expected one of train, test, validation, unseen"),
    (dict(split="validation"), "the split 'validation' has no scenes"),
    (dict(split="unseen"), "the split 'unseen' has no scenes"),
    (dict(min_objects=0), "0 to 4 objects"),
    (dict(min_objects=5), "5 to 4 objects"),
    (dict(max_objects=5, index=4), "5 objects on a 2x2 grid; expected 1 to 4"),
    (dict(grid=1), "grid is 1"),
  ],
)
def test_an_impossible_record_is_refused_in_words(change, message):
  with pytest.raises(ValueError, match=message):
    scene_of(**{**dict(index=0, split="train", grid=2, min_objects=1, max_objects=4), **change})


# --------------------------------------------------------------------------------------------------------------- pixels


def test_a_picture_is_fresh_memory_of_the_asked_size():
  scene = drawn(2, 4, n=1)[0]
  image = render(scene, 32)
  assert image.shape == (32, 32, 3) and image.dtype == np.uint8
  expected = image.copy()
  image[:] = 0
  assert np.array_equal(render(scene, 32), expected)
  assert np.all(render(Scene(2, ()), 32) == world.BACKGROUND)


@pytest.mark.parametrize("image_size, grid", [(32, 2), (100, 3), (64, 5), (32, 5), (13, 2)])
def test_objects_never_touch_each_others_pixels(image_size, grid):
  scene = Scene(
    grid, tuple(SceneObject("square", "black", "large", row, column) for row, column in np.ndindex(grid, grid))
  )
  inked = sum(
    np.any(render(Scene(grid, (item,)), image_size) != world.BACKGROUND, axis=-1).astype(int) for item in scene.objects
  )
  assert inked.max() == 1
  whole = np.any(render(scene, image_size) != world.BACKGROUND, axis=-1)
  assert np.array_equal(whole, inked == 1)


@pytest.mark.parametrize("image_size, grid", [(32, 2), (64, 5), (100, 3), (33, 2), (13, 2), (32, 5)])
def test_objects_stand_at_the_centers_of_their_cells(image_size, grid):
  cell = image_size / grid
  for row, column in np.ndindex(grid, grid):
    image = render(Scene(grid, (SceneObject("circle", "black", "large", row, column),)), image_size)
    ink = world.BACKGROUND[0] - image[..., 0].astype(float)
    center = [(ink * axis).sum() / ink.sum() + 0.5 for axis in np.indices(ink.shape)]
    assert np.allclose(center, [(row + 0.5) * cell, (column + 0.5) * cell], atol=0.02)
    area = ink.sum() / (world.BACKGROUND[0] - world.COLORS["black"][0])
    assert area == pytest.approx(np.pi * (0.97 * world.SIZES["large"] * cell) ** 2, rel=0.02)


@pytest.mark.parametrize("shape", world.SHAPES)
def test_a_small_picture_is_the_average_of_a_large_one(shape):
  scene = Scene(2, (SceneObject(shape, "black", "large", 0, 1), SceneObject(shape, "black", "small", 1, 0)))
  fine = render(scene, 32 * 8).reshape(32, 8, 32, 8, 3).mean((1, 3))
  assert np.abs(render(scene, 32) - fine).max() < 16  # of 216 levels of ink


def test_a_cell_of_too_few_pixels_is_refused():
  assert render(Scene(2, (RED_STAR,)), 13).shape == (13, 13, 3)
  with pytest.raises(ValueError, match="image_size 31 is too small for a 5x5 grid"):
    render(Scene(5, (RED_STAR,)), 31)
