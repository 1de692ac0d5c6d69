"""The grader: what is drawn can be read back from the pixels, and what is wrong with them is found."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from omniimage.data.scenes import world
from omniimage.data.scenes.grader import grade, grade_many, score
from omniimage.data.scenes.world import Scene, SceneObject, render

RED_STAR = SceneObject("star", "red", "large", 0, 0)
# (image size, grid, objects): 16-pixel cells, wider ones, and ones that are not whole pixels wide.
WORLDS = [(32, 2, 4), (48, 3, 6), (64, 4, 12), (80, 5, 20), (100, 3, 9), (64, 5, 20), (33, 2, 3), (256, 4, 16)]
KINDS = [(shape, color, size) for shape in world.SHAPES for color in world.COLORS for size in world.SIZES]


def drawn(grid: int, num_objects: int, n: int, seed: int = 0) -> list[Scene]:
  rng = np.random.default_rng(seed)
  return [world.draw_scene(rng, grid, num_objects) for _ in range(n)]


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


def bound_share(expected: list[Scene], images: np.ndarray, shifts=world.CENTERED) -> float:
  graded = grade_many(images, expected[0].grid, shifts)
  return float(np.mean([bound for scene, seen in zip(expected, graded) for bound in score(scene, seen).bound]))


# --------------------------------------------------------------------------------------------------------------- grader


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


# ---------------------------------------------------------------------------------------------------------------- score


@pytest.mark.parametrize("attribute, table", [("shape", "SHAPES"), ("color", "COLORS"), ("size", "SIZES")])
def test_the_one_wrong_attribute_is_found(attribute, table):
  for scene in drawn(3, 4, n=6):
    for changed, item in enumerate(scene.objects):
      for value in set(getattr(world, table)) - {getattr(item, attribute)}:
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
  assert result.swapped == (True, True) and result.mistakes == {"swapped": 2}


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


# -------------------------------------------------------------------------------------------- mistakes made on purpose


def changed(scene: Scene, place: int, **attributes) -> Scene:
  """The scene with another object in the place of one."""
  objects = list(scene.objects)
  objects[place] = dataclasses.replace(objects[place], **attributes)
  return Scene(scene.grid, objects)


def another(table, value: str) -> str:
  return next(other for other in table if other != value)


def swapped(scene: Scene, one: int, other: int) -> Scene:
  first, second = scene.objects[one], scene.objects[other]
  rest = [item for item in scene.objects if item not in (first, second)]
  moved = (dataclasses.replace(item, row=to.row, column=to.column) for item, to in ((first, second), (second, first)))
  return Scene(scene.grid, (*rest, *moved))


def free_cell(scene: Scene) -> dict[str, int]:
  taken = {item.cell for item in scene.objects}
  row, column = next(cell for cell in np.ndindex(scene.grid, scene.grid) if cell not in taken)
  return {"row": row, "column": column}


SPOILED = {
  "color": lambda s: changed(s, 4, color=another(world.COLORS, s.objects[4].color)),
  "shape": lambda s: changed(s, 4, shape=another(world.SHAPES, s.objects[4].shape)),
  "size": lambda s: changed(s, 4, size=another(world.SIZES, s.objects[4].size)),
  "position": lambda s: changed(s, 4, **free_cell(s)),
  "missing": lambda s: Scene(s.grid, s.objects[1:]),
  "extra": lambda s: Scene(s.grid, (*s.objects, SceneObject("star", "black", "small", **free_cell(s)))),
}


@pytest.mark.parametrize("name", SPOILED)
@pytest.mark.parametrize("num_objects", [5, 20])
def test_each_kind_of_mistake_is_called_by_its_name(name, num_objects):
  for scene in drawn(5, num_objects, n=5):
    result = score(scene, grade(render(SPOILED[name](scene), 80), 5))
    assert result.mistakes == {name: 1} and not result.exact
    assert sum(result.bound) == num_objects - (name != "extra")


def test_a_picture_without_mistakes_has_none_and_several_are_counted_together():
  for scene in drawn(5, 12, n=5):
    assert score(scene, grade(render(scene, 80), 5)).mistakes == {}
    spoiled = changed(SPOILED["color"](scene), 7, shape=another(world.SHAPES, scene.objects[7].shape))
    result = score(scene, grade(render(SPOILED["missing"](spoiled), 80), 5))
    assert result.mistakes == {"color": 1, "shape": 1, "missing": 1} and sum(result.bound) == 9


def test_two_objects_in_each_others_cells_are_swapped_and_attributes_that_changed_sides_are_not():
  star, ring = RED_STAR, SceneObject("ring", "blue", "small", 3, 1)
  heart = SceneObject("heart", "green", "small", 2, 2)
  scene = Scene(5, (star, ring, heart))
  result = score(scene, grade(render(swapped(scene, 0, 2), 80), 5))
  assert result.mistakes == {"swapped": 2} and result.bound == (False, True, False)
  colors = Scene(5, (dataclasses.replace(star, color="blue"), dataclasses.replace(ring, color="red"), heart))
  assert score(scene, grade(render(colors, 80), 5)).mistakes == {"color": 2}
  in_a_ring = Scene(5, tuple(
    dataclasses.replace(item, row=to.row, column=to.column) for item, to in ((star, ring), (ring, heart), (heart, star))
  ))  # fmt: skip
  assert "swapped" not in score(scene, grade(render(in_a_ring, 80), 5)).mistakes


def test_an_object_is_swapped_with_one_other_at_most():
  twins = [SceneObject("star", "red", "large", 0, 0), SceneObject("star", "red", "large", 0, 1)]
  ring = SceneObject("ring", "blue", "small", 1, 0)
  result = score(Scene(2, (*twins, ring)), grade(render(swapped(Scene(2, (*twins, ring)), 0, 2), 32), 2))
  assert result.mistakes == {"swapped": 2} and result.swapped == (True, False, True)


def test_cells_that_show_nothing_clearly_are_counted_whether_asked_for_or_not():
  image = render(Scene(2, (RED_STAR,)), 32)
  image[:16], asked = 128, Scene(2, (RED_STAR,))
  result = score(asked, grade(image, 2))
  assert result.unclear == ((0, 0), (0, 1)) and result.mistakes == {"unclear": 2}
