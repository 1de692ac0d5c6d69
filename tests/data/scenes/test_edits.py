"""Edits: an instruction can be meant in one way only, and its grader sees what was not done and what was not asked."""

import collections
import re

import numpy as np
import pytest

from omniimage.data.scenes.captions import SIZE_WORDS, places
from omniimage.data.scenes.edits import TEMPLATES, draw_change, kind_of_change
from omniimage.data.scenes.tasks.edit import Asked, EditGrader
from omniimage.data.scenes.world import GRIDS, Scene, SceneObject, draw_scene, render, scene_of

STAR = SceneObject("star", "red", "large", 0, 0)
RING = SceneObject("ring", "blue", "small", 1, 1)
SIZE_OF = {word: size for size, words in SIZE_WORDS.items() for word in words} | dict(
  smaller="small", larger="large", bigger="large"
)


def meant(phrase: str, scene: Scene, it: SceneObject | None = None) -> list[SceneObject]:
  """All objects that a phrase may mean, by a reader of its own."""
  if phrase == "it":
    return [it]
  assert phrase.startswith("the "), phrase
  cell_of = {place: cell for cell, phrases in places(scene.grid).items() for place in phrases}
  place = next((place for place in sorted(cell_of, key=len)[::-1] if phrase.endswith(f" {place}")), None)
  words = phrase.removeprefix("the ").removesuffix(place or "").split()
  return [
    item
    for item in scene.objects
    if (place is None or item.cell == cell_of[place])
    and all(word == "one" or SIZE_OF.get(word, word) in (item.size, item.color, item.shape) for word in words)
  ]


def carried_out(instruction: str, scene: Scene, it: SceneObject | None = None) -> Scene:
  """The scene after an instruction, by a reader of its own: fails where it can be meant in several ways."""
  cell_of = {place: cell for cell, phrases in places(scene.grid).items() for place in phrases}
  beside = {"above": (-1, 0), "over": (-1, 0), "up": (-1, 0), "below": (1, 0), "under": (1, 0), "down": (1, 0)}
  beside |= {"left": (0, -1), "right": (0, 1), "left of": (0, -1), "right of": (0, 1)}
  beside |= {f"to the {side}": step for side, step in beside.items()}

  def one(phrase):
    (item,) = meant(phrase, scene, it)
    return item

  def replaced(gone, *come):
    return Scene(scene.grid, (*(item for item in scene.objects if item not in gone), *come))

  def cell(words):
    if words in beside:
      return it.row + beside[words][0], it.column + beside[words][1]
    return next(
      cell_of[f"{preposition} {words}"] for preposition in ("in", "at") if f"{preposition} {words}" in cell_of
    )

  if match := re.fullmatch(r"(?:remove (.+)|take (.+) away)", instruction):
    return replaced([one(match[1] or match[2])])
  if match := re.fullmatch(r"swap (.+) (?:and|with) (.+)", instruction):
    first, second = one(match[1]), one(match[2])
    return replaced([first, second], moved(first, second.cell), moved(second, first.cell))
  if match := re.fullmatch(r"(?:add|put) a (\w+) (\w+) (\w+) (.+?)(?: it)?", instruction):
    size, color, shape, where = match.groups()
    where = where.removeprefix("in ").removeprefix("at ")
    return replaced([], SceneObject(shape, color, SIZE_OF[size], *cell(where)))
  if match := re.fullmatch(r"move it (up|down|left|right)", instruction):
    return replaced([it], moved(it, cell(match[1])))
  if match := re.fullmatch(r"move (.+?) to (the .+|row .+|column .+)", instruction):
    item = one(match[1])
    return replaced([item], moved(item, cell(match[2])))
  match = re.fullmatch(r"(?:make|paint|turn) (.+?)(?: into)?( a)? (\w+)", instruction)
  item, value = one(match[1]), match[3]
  size, color, shape = SIZE_OF.get(value, item.size), item.color, item.shape
  if value not in SIZE_OF:
    color, shape = (color, value) if match[2] else (value, shape)
  return replaced([item], SceneObject(shape, color, size, *item.cell))


def moved(item: SceneObject, cell) -> SceneObject:
  return SceneObject(item.shape, item.color, item.size, *cell)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_reader_of_the_instruction_alone_makes_the_very_change(grid):
  rng = np.random.default_rng(grid)
  for _ in range(250):
    scene = draw_scene(rng, grid, int(rng.integers(1, grid**2 + 1)))
    change = draw_change(scene, rng)
    assert carried_out(change.instruction, scene) == change.scene, change.instruction
    assert change.scene != scene and change.scene.objects


@pytest.mark.parametrize("grid", GRIDS)
def test_it_is_what_was_changed_last(grid):
  rng, said = np.random.default_rng(grid), 0
  for _ in range(100):
    scene, it = draw_scene(rng, grid, int(rng.integers(1, grid**2 + 1))), None
    for _ in range(3):
      change = draw_change(scene, rng, it)
      assert carried_out(change.instruction, scene, it) == change.scene, change.instruction
      said += "it" in change.instruction.split()
      scene, it = change.scene, change.it
      assert it is None or it in scene.objects
  assert said > 60


def test_twins_are_told_apart_by_their_cells():
  twins = Scene(2, (STAR, SceneObject("star", "red", "large", 1, 1)))
  rng = np.random.default_rng(0)
  for _ in range(100):
    change = draw_change(twins, rng)
    assert carried_out(change.instruction, twins) == change.scene
    assert not change.instruction.startswith("swap"), "of twins nothing would change"


def test_all_kinds_of_change_are_asked_for_about_as_often():
  rng = np.random.default_rng(0)
  kinds = collections.Counter()
  for index in range(1400):
    scene = scene_of(index, "train", grid=3, min_objects=3, max_objects=6)
    kinds[kind_of_change(scene, draw_change(scene, rng).scene)] += 1
  assert set(kinds) == set(TEMPLATES) and min(kinds.values()) > 120


def test_the_last_object_of_a_scene_is_never_removed_and_a_full_grid_takes_no_more():
  rng = np.random.default_rng(0)
  alone, full = Scene(2, (STAR,)), draw_scene(rng, 2, 4)
  of_one = {kind_of_change(alone, draw_change(alone, rng).scene) for _ in range(200)}
  of_full = {kind_of_change(full, draw_change(full, rng).scene) for _ in range(200)}
  assert of_one == {"recolor", "resize", "reshape", "add", "move"}
  assert of_full == {"recolor", "resize", "reshape", "remove", "swap"}


# ----------------------------------------------------------------------------------------------------------- the grader


BLUE_STAR = SceneObject("star", "blue", "large", 0, 0)
HEART = SceneObject("heart", "pink", "large", 0, 1)


@pytest.mark.parametrize(
  ("shown", "done", "kept"),
  [
    ((BLUE_STAR, RING), True, True),
    ((STAR, RING), False, True),  # nothing was done
    ((BLUE_STAR,), True, False),  # and something else is gone
    ((BLUE_STAR, RING, HEART), True, False),  # and something else has come
    ((STAR,), False, False),
    ((RING,), False, True),  # removed instead
    ((), False, False),
    ((BLUE_STAR, SceneObject("ring", "blue", "large", 1, 1)), True, False),
  ],
)
def test_a_change_that_is_missing_and_one_that_nobody_asked_for_are_told_apart(shown, done, kept):
  grader = EditGrader(2)
  asked = Asked(Scene(2, (STAR, RING)), Scene(2, (BLUE_STAR, RING)))
  (graded,) = grader.grade(render(Scene(2, shown), 32)[None])
  score = grader.score(asked, graded)
  assert (score.done, score.kept, score.exact) == (done, kept, done and kept)


def test_a_smeared_cell_is_neither_done_nor_kept():
  grader = EditGrader(2)
  asked = Asked(Scene(2, (STAR, RING)), Scene(2, (RING,)))
  gray = np.full((16, 16, 3), 128, np.uint8)
  for cell, done, kept in (((0, 0), False, True), ((0, 1), True, False), ((1, 1), True, False)):
    image = render(asked.after, 32)
    image[16 * cell[0] : 16 * cell[0] + 16, 16 * cell[1] : 16 * cell[1] + 16] = gray
    (graded,) = grader.grade(image[None])
    score = grader.score(asked, graded)
    assert (score.done, score.kept) == (done, kept)


def test_moving_and_swapping_need_both_cells_right():
  grader = EditGrader(2)
  swapped = Scene(2, (moved(RING, STAR.cell), moved(STAR, RING.cell)))
  asked = Asked(Scene(2, (STAR, RING)), swapped)
  assert asked.kind == "swap"
  (half,) = grader.grade(render(Scene(2, (moved(RING, STAR.cell),)), 32)[None])
  assert not grader.score(asked, half).done
  asked = Asked(Scene(2, (STAR, RING)), Scene(2, (moved(STAR, (0, 1)), RING)))
  assert asked.kind == "move"
  (copied,) = grader.grade(render(Scene(2, (STAR, moved(STAR, (0, 1)), RING)), 32)[None])
  assert (grader.score(asked, copied).done, grader.score(asked, copied).kept) == (False, True)
