"""Captions: every one of them reads back as its scene."""

import re

import numpy as np
import pytest

from omniimage.data.scenes import world
from omniimage.data.scenes.captions import caption, caption_bound, parse, vocabulary_captions
from omniimage.data.scenes.wording import count_words
from omniimage.data.scenes.world import Scene, SceneObject, draw_scene

RED_STAR = SceneObject("star", "red", "large", 0, 0)


def drawn(grid: int, num_objects: int, n: int, seed: int = 0) -> list[Scene]:
  rng = np.random.default_rng(seed)
  return [draw_scene(rng, grid, num_objects) for _ in range(n)]


@pytest.mark.parametrize("grid", world.GRIDS)
def test_every_caption_reads_back_as_its_scene_and_keeps_its_bound(grid):
  rng = np.random.default_rng(grid)
  for num_objects in range(1, grid * grid + 1):
    for scene in drawn(grid, num_objects, n=400 // grid**2, seed=num_objects):
      text = caption(scene, rng)
      assert parse(text, grid) == scene, text
      assert count_words(text) <= caption_bound(num_objects, grid, count_words), text


@pytest.mark.parametrize("num_objects, grid", [(1, 2), (2, 2), (4, 2), (2, 3), (3, 5)])
def test_the_bound_on_words_is_reached(num_objects, grid):
  rng = np.random.default_rng(0)
  captions = [caption(scene, rng) for scene in drawn(grid, num_objects, n=400)]
  longest = max(count_words(text) for text in captions)
  assert longest == caption_bound(num_objects, grid, count_words)


def test_captions_are_compact():
  assert caption_bound(4, 2, count_words) <= 40
  assert caption_bound(20, 5, count_words) <= 230


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
  captions = list(vocabulary_captions(200, seed=0))
  assert len(captions) == 200
  assert captions == list(vocabulary_captions(200, seed=0))
  assert captions != list(vocabulary_captions(200, seed=1))
  words = set(re.findall(r"\w+|[^\w\s]", " ".join(captions)))
  assert words >= {
    *world.SHAPES,
    *world.COLORS,
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
