"""The scenes world: what is drawn can be read back, from the words and from the pixels."""

import dataclasses
import io
import re

import numpy as np
import pytest
from PIL import Image

from omniimage.data import scenes
from omniimage.data.scenes import Scene, SceneObject, caption, grade, grade_many, parse, render, scene_of, score

RED_STAR = SceneObject("star", "red", "large", 0, 0)
# (image size, grid, objects): 16-pixel cells, wider ones, and ones that are not whole pixels wide.
WORLDS = [(32, 2, 4), (48, 3, 6), (64, 4, 12), (80, 5, 20), (100, 3, 9), (64, 5, 20), (33, 2, 3), (256, 4, 16)]
KINDS = [(shape, color, size) for shape in scenes.SHAPES for color in scenes.COLORS for size in scenes.SIZES]


def drawn(grid: int, num_objects: int, n: int, seed: int = 0) -> list[Scene]:
  rng = np.random.default_rng(seed)
  return [scenes.draw_scene(rng, grid, num_objects) for _ in range(n)]


def in_first_cell(*kinds) -> np.ndarray:
  """Pictures (n, 32, 32, 3) of one object each, at the top left of a 2×2 scene."""
  return np.stack([render(Scene(2, (SceneObject(*kind, 0, 0),)), 32) for kind in kinds])


def with_noise(images: np.ndarray, sigma: float) -> np.ndarray:
  """Adds Gaussian noise of `sigma` (of a range of 1) and returns float images in [-1, 1]."""
  noise = np.random.default_rng(0).normal(size=images.shape) * 2 * sigma
  return np.clip(images / 127.5 - 1 + noise, -1, 1)


def through_jpeg(image: np.ndarray, quality: int = 75) -> np.ndarray:
  file = io.BytesIO()
  Image.fromarray(image).save(file, "JPEG", quality=quality)
  return np.asarray(Image.open(file))


def bound_share(expected: list[Scene], images: np.ndarray) -> float:
  graded = grade_many(images, expected[0].grid)
  return float(np.mean([bound for scene, seen in zip(expected, graded) for bound in score(scene, seen).bound]))


# ---------------------------------------------------------------------------------------------------------- scenes


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
  found = [scenes.split_of(Scene(2, (SceneObject(*kind, row, 0),))) for kind in kinds for row in (0, 1)]
  assert found == ["train", "train", "train", "train", "train", "test", "test", "train"]


@pytest.mark.parametrize("low, high", [(1, 4), (2, 2), (3, 9)])
def test_the_number_of_objects_is_known_without_drawing(low, high):
  for index in range(20):
    expected = low + index % (high - low + 1)
    assert scenes.num_objects_of(index, min_objects=low, max_objects=high) == expected
    assert len(scene_of(index, "train", grid=3, min_objects=low, max_objects=high).objects) == expected


def test_no_scene_is_in_both_splits_and_every_scene_is_in_one():
  singles = [Scene(2, (SceneObject(*kind, row, column),)) for kind in KINDS for row in (0, 1) for column in (0, 1)]
  of_split = {split: {scene for scene in singles if scenes.split_of(scene) == split} for split in ("train", "test")}
  assert 10 <= len(of_split["test"]) <= 45  # 512 / 20
  for split, num_records in (("train", 5000), ("test", 500)):
    records = {scene_of(index, split, grid=2, min_objects=1, max_objects=1) for index in range(num_records)}
    assert records == of_split[split]


def test_one_scene_in_twenty_is_held_out():
  share = np.mean([scenes.split_of(scene) == "test" for scene in drawn(3, 4, 4000)])
  assert 0.04 < share < 0.06


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(split="validation"), "unknown split 'validation'"),
    (dict(min_objects=0), "0 to 4 objects"),
    (dict(min_objects=5), "5 to 4 objects"),
    (dict(max_objects=5, index=4), "5 objects on a 2x2 grid; expected 1 to 4"),
    (dict(grid=1), "grid is 1"),
  ],
)
def test_an_impossible_record_is_refused_in_words(change, message):
  with pytest.raises(ValueError, match=message):
    scene_of(**{**dict(index=0, split="train", grid=2, min_objects=1, max_objects=4), **change})


# -------------------------------------------------------------------------------------------------------- captions


@pytest.mark.parametrize("grid", scenes.GRIDS)
def test_every_caption_reads_back_as_its_scene_and_keeps_its_bound(grid):
  rng = np.random.default_rng(grid)
  for num_objects in range(1, grid * grid + 1):
    for scene in drawn(grid, num_objects, n=400 // grid**2, seed=num_objects):
      text = caption(scene, rng)
      assert parse(text, grid) == scene, text
      assert len(re.findall(r"\w+|[^\w\s]", text)) <= scenes.caption_words(num_objects, grid), text


@pytest.mark.parametrize("num_objects, grid", [(1, 2), (2, 2), (4, 2), (2, 3), (3, 5)])
def test_the_bound_on_words_is_reached(num_objects, grid):
  rng = np.random.default_rng(0)
  captions = [caption(scene, rng) for scene in drawn(grid, num_objects, n=400)]
  longest = max(len(re.findall(r"\w+|[^\w\s]", text)) for text in captions)
  assert longest == scenes.caption_words(num_objects, grid)


def test_captions_are_compact():
  assert scenes.caption_words(4, 2) <= 40
  assert scenes.caption_words(20, 5) <= 230


def test_a_scene_is_described_in_many_ways_and_orders():
  scene = drawn(2, 3, n=1)[0]
  rng = np.random.default_rng(0)
  captions = [caption(scene, rng) for _ in range(300)]
  assert len(set(captions)) > 290
  firsts = {min((text.find(f"{item.color} {item.shape}"), item) for item in scene.objects)[1] for text in captions}
  assert firsts == set(scene.objects)
  assert caption(scene, np.random.default_rng(7)) == caption(scene, np.random.default_rng(7))


@pytest.mark.parametrize(
  "grid, place, cell",
  [
    (2, "in the top left", (0, 0)),
    (2, "at the upper right", (0, 1)),
    (2, "in the lower left", (1, 0)),
    (2, "at the bottom right", (1, 1)),
    (3, "in the top center", (0, 1)),
    (3, "at the middle left", (1, 0)),
    (3, "in the center", (1, 1)),
    (3, "at the center right", (1, 2)),
    (3, "in the bottom middle", (2, 1)),
    (4, "in row 2, column 4", (1, 3)),
    (5, "at row 5, column 1", (4, 0)),
    (5, "in column 3 of row 2", (1, 2)),
  ],
)
def test_places_mean_what_they_say(grid, place, cell):
  (item,) = parse(f"one tiny blue heart {place}", grid).objects
  assert item == SceneObject("heart", "blue", "small", *cell)
  rng = np.random.default_rng(0)
  assert any(caption(Scene(grid, (item,)), rng).removesuffix(".").endswith(place) for _ in range(300))


def test_a_prompt_may_be_typed_with_capitals_and_loose_spaces():
  assert parse(" A Large red  star in the Top left. ", 2) == Scene(2, (RED_STAR,))
  assert parse("a big red star in row 1, column 1", 4) == Scene(4, (RED_STAR,))


@pytest.mark.parametrize(
  "text, grid, message",
  [
    ("a huge red star in the top left", 2, "'huge' is not understood.*reads like 'a large red star in the top left'"),
    ("a large red star in the center", 2, "'center' is not understood"),
    ("a large red star in row 1, column 5", 4, "'5' is not understood"),
    ("a large red star in the top left", 5, "'the' is not understood.*'a large red star in row 1, column 1'"),
    ("a large red star", 2, "'a large red star' is not understood"),
    ("a large red star in the top left and", 2, "is not understood"),
    ("a large red star in the top left, a small red star at the upper left", 2, "two objects in row 0, column 0"),
    ("", 2, "'' is not understood"),
    ("a large red star in the top left", 7, "grid is 7"),
  ],
)
def test_what_a_prompt_gets_wrong_is_named(text, grid, message):
  with pytest.raises(ValueError, match=message):
    parse(text, grid)


def test_a_scene_of_nothing_has_no_caption():
  with pytest.raises(ValueError, match="no objects"):
    caption(Scene(2, ()), np.random.default_rng(0))


def test_vocabulary_captions_hold_every_word_of_every_grid():
  captions = list(scenes.vocabulary_captions(200, seed=0))
  assert len(captions) == 200
  assert captions == list(scenes.vocabulary_captions(200, seed=0))
  assert captions != list(scenes.vocabulary_captions(200, seed=1))
  words = set(re.findall(r"\w+|[^\w\s]", " ".join(captions)))
  assert words >= {
    *scenes.SHAPES,
    *scenes.COLORS,
    "large",
    "big",
    "small",
    "little",
    "tiny",
    "there",
    "picture",
    "image",
  }
  assert words >= {"upper", "lower", "top", "bottom", "middle", "center", "row", "column", *"12345.,;"}


# ---------------------------------------------------------------------------------------------------------- pixels


def test_a_picture_is_fresh_memory_of_the_asked_size():
  scene = drawn(2, 4, n=1)[0]
  image = render(scene, 32)
  assert image.shape == (32, 32, 3) and image.dtype == np.uint8
  expected = image.copy()
  image[:] = 0
  assert np.array_equal(render(scene, 32), expected)
  assert np.all(render(Scene(2, ()), 32) == scenes.BACKGROUND)


@pytest.mark.parametrize("image_size, grid", [(32, 2), (100, 3), (64, 5), (32, 5), (13, 2)])
def test_objects_never_touch_each_others_pixels(image_size, grid):
  scene = Scene(
    grid, tuple(SceneObject("square", "black", "large", row, column) for row, column in np.ndindex(grid, grid))
  )
  inked = sum(
    np.any(render(Scene(grid, (item,)), image_size) != scenes.BACKGROUND, axis=-1).astype(int) for item in scene.objects
  )
  assert inked.max() == 1
  whole = np.any(render(scene, image_size) != scenes.BACKGROUND, axis=-1)
  assert np.array_equal(whole, inked == 1)


@pytest.mark.parametrize("image_size, grid", [(32, 2), (64, 5), (100, 3), (33, 2), (13, 2), (32, 5)])
def test_objects_stand_at_the_centers_of_their_cells(image_size, grid):
  cell = image_size / grid
  for row, column in np.ndindex(grid, grid):
    image = render(Scene(grid, (SceneObject("circle", "black", "large", row, column),)), image_size)
    ink = scenes.BACKGROUND[0] - image[..., 0].astype(float)
    center = [(ink * axis).sum() / ink.sum() + 0.5 for axis in np.indices(ink.shape)]
    assert np.allclose(center, [(row + 0.5) * cell, (column + 0.5) * cell], atol=0.02)
    area = ink.sum() / (scenes.BACKGROUND[0] - scenes.COLORS["black"][0])
    assert area == pytest.approx(np.pi * (0.97 * scenes.SIZES["large"] * cell) ** 2, rel=0.02)


@pytest.mark.parametrize("shape", scenes.SHAPES)
def test_a_small_picture_is_the_average_of_a_large_one(shape):
  scene = Scene(2, (SceneObject(shape, "black", "large", 0, 1), SceneObject(shape, "black", "small", 1, 0)))
  fine = render(scene, 32 * 8).reshape(32, 8, 32, 8, 3).mean((1, 3))
  assert np.abs(render(scene, 32) - fine).max() < 16  # of 216 levels of ink


def test_a_cell_of_too_few_pixels_is_refused():
  assert render(Scene(2, (RED_STAR,)), 13).shape == (13, 13, 3)
  with pytest.raises(ValueError, match="image_size 31 is too small for a 5x5 grid"):
    render(Scene(5, (RED_STAR,)), 31)


# ---------------------------------------------------------------------------------------------------------- grader


@pytest.mark.parametrize("image_size, grid, num_objects", WORLDS)
def test_the_grader_is_right_on_every_true_image(image_size, grid, num_objects):
  expected = drawn(grid, num_objects, n=60)
  graded = grade_many(np.stack([render(scene, image_size) for scene in expected]), grid)
  assert [seen.scene for seen in graded] == expected
  assert all(score(scene, seen).exact for scene, seen in zip(expected, graded))
  assert max(seen.residuals.max() for seen in graded) < 0.003  # nothing but the rounding to 255 levels


@pytest.mark.parametrize("image_size", [32, 50])
def test_every_kind_of_object_is_told_from_every_other_in_every_cell(image_size):
  for row, column in np.ndindex(2, 2):
    expected = [Scene(2, (SceneObject(*kind, row, column),)) for kind in KINDS]
    assert [seen.scene for seen in grade_many(np.stack([render(s, image_size) for s in expected]), 2)] == expected


@pytest.mark.parametrize("image_size, grid, num_objects", WORLDS[:5])
def test_noise_and_jpeg_do_not_mislead_the_grader(image_size, grid, num_objects):
  expected = drawn(grid, num_objects, n=2400 // num_objects, seed=1)
  images = np.stack([render(scene, image_size) for scene in expected])
  compressed = np.stack([through_jpeg(image) for image in images])
  assert not np.array_equal(images, compressed)
  assert bound_share(expected, with_noise(images, 0.05)) >= 0.995
  assert bound_share(expected, compressed) >= 0.995
  assert bound_share(expected, with_noise(compressed, 0.05)) >= 0.99


def test_bytes_and_floats_grade_alike_and_a_batch_like_its_pictures():
  images = np.stack([render(scene, 48) for scene in drawn(3, 5, n=8)])
  in_bytes, in_floats = grade_many(images, 3), grade_many((images / 127.5 - 1).astype(np.float32), 3)
  for n, image in enumerate(images):
    alone = grade(image, 3)
    assert alone.scene == in_bytes[n].scene == in_floats[n].scene
    np.testing.assert_allclose(alone.residuals, in_floats[n].residuals, atol=1e-3)


@pytest.mark.parametrize("with_nothing", [False, True])
def test_no_blend_of_two_objects_is_an_object(with_nothing):
  images = in_first_cell(*KINDS).astype(np.float32) / 127.5 - 1
  empty = render(Scene(2, ()), 32)[None] / np.float32(127.5) - 1
  first, second = np.triu_indices(len(KINDS), 1)
  blends = (images + empty) / 2 if with_nothing else (images[first] + images[second]) / 2
  for batch in np.array_split(blends, 8):
    assert all(seen.unclear == ((0, 0),) and not seen.scene.objects for seen in grade_many(batch, 2))


def test_strangers_are_not_objects():
  rng = np.random.default_rng(0)
  circle, heart, ring = (
    in_first_cell((shape, "green", "large"))[0, :16, :16] / 127.5 - 1 for shape in ("circle", "heart", "ring")
  )
  disc = np.hypot(*(np.mgrid[:16, :16] - 7.5))[..., None] < 5
  checkers = np.where(np.indices((16, 16)).sum(0) % 2, 0.5, -0.5)[..., None]
  strangers = {
    "a flat gray cell": np.zeros((16, 16, 3)),
    "a gray disc": np.where(disc, 0.0, circle[0, 0]),
    "an orange disc": np.where(disc, [1.0, -0.05, -0.9], circle[0, 0]),
    "uniform noise": rng.uniform(-1, 1, (16, 16, 3)),
    "blotches": np.kron(rng.uniform(-1, 1, (4, 4, 3)), np.ones((4, 4, 1))),
    "a circle behind checkers": np.clip(circle + checkers, -1, 1),
    "half a heart, half a ring": np.concatenate([heart[:, :8], ring[:, 8:]], axis=1),
    "nan": np.full((16, 16, 3), np.nan),
  }
  for name, stranger in strangers.items():
    image = render(Scene(2, ()), 32) / 127.5 - 1
    image[:16, :16] = stranger
    seen = grade(image, 2)
    assert seen.unclear == ((0, 0),) and not seen.scene.objects, name


@pytest.mark.parametrize(
  "images, message",
  [
    (np.zeros((2, 32, 48, 3), np.uint8), r"shape \(2, 32, 48, 3\); expected \(N, S, S, 3\)"),
    (np.zeros((32, 32, 3), np.uint8), r"shape \(32, 32, 3\)"),
    (np.zeros((2, 32, 32, 3), np.int32), "images are int32; expected uint8, or float"),
    (np.zeros((2, 12, 12, 3), np.uint8), "image_size 12 is too small"),
  ],
)
def test_what_cannot_be_graded_is_refused_in_words(images, message):
  with pytest.raises(ValueError, match=message):
    grade_many(images, 2)


# ----------------------------------------------------------------------------------------------------------- score


@pytest.mark.parametrize("attribute, table", [("shape", "SHAPES"), ("color", "COLORS"), ("size", "SIZES")])
def test_the_one_wrong_attribute_is_found(attribute, table):
  for scene in drawn(3, 4, n=6):
    for changed, item in enumerate(scene.objects):
      for value in set(getattr(scenes, table)) - {getattr(item, attribute)}:
        objects = list(scene.objects)
        objects[changed] = dataclasses.replace(item, **{attribute: value})
        result = score(scene, grade(render(Scene(3, objects), 48), 3))
        assert result.wrong == tuple((attribute,) if n == changed else () for n in range(4))
        assert result.bound == tuple(n != changed for n in range(4))
        assert not result.exact and result.extra == () and result.unclear == ()


def test_an_object_that_moved_is_wrong_in_position_only():
  for scene in drawn(3, 4, n=10):
    for changed, item in enumerate(scene.objects):
      row, column = next(cell for cell in np.ndindex(3, 3) if cell not in {other.cell for other in scene.objects})
      objects = [
        *scene.objects[:changed],
        dataclasses.replace(item, row=row, column=column),
        *scene.objects[changed + 1 :],
      ]
      result = score(scene, grade(render(Scene(3, objects), 48), 3))
      assert result.wrong == tuple(("position",) if n == changed else () for n in range(4))
      assert not result.exact and result.extra == ()


def test_two_objects_that_swapped_places_are_both_unbound():
  star, ring = RED_STAR, SceneObject("ring", "blue", "large", 1, 1)
  swapped = Scene(2, (dataclasses.replace(ring, row=0, column=0), dataclasses.replace(star, row=1, column=1)))
  result = score(Scene(2, (star, ring)), grade(render(swapped, 32), 2))
  assert result.wrong == (("shape", "color"), ("shape", "color")) and not result.exact


def test_missing_extra_and_unclear_cells_are_told_apart():
  star, ring, heart = RED_STAR, SceneObject("ring", "blue", "small", 0, 1), SceneObject("heart", "pink", "large", 1, 0)
  asked = Scene(2, (star, ring))
  missing = score(asked, grade(render(Scene(2, (star,)), 32), 2))
  assert missing.wrong == ((), ("missing",)) and not missing.exact
  extra = score(asked, grade(render(Scene(2, (star, ring, heart)), 32), 2))
  assert extra.bound == (True, True) and extra.extra == (heart,) and not extra.exact
  smeared = render(asked, 32)
  smeared[:16, 16:] = 128
  unclear = score(asked, grade(smeared, 2))
  assert unclear.wrong == ((), ("unclear",)) and unclear.unclear == ((0, 1),) and not unclear.exact
  smeared = render(asked, 32)
  smeared[16:, 16:] = 128
  elsewhere = score(asked, grade(smeared, 2))
  assert elsewhere.bound == (True, True) and elsewhere.unclear == ((1, 1),) and not elsewhere.exact


def test_a_picture_graded_on_another_grid_cannot_be_scored():
  with pytest.raises(ValueError, match="graded on grid 3, the scene has grid 2"):
    score(Scene(2, (RED_STAR,)), grade(render(Scene(3, ()), 48), 3))
