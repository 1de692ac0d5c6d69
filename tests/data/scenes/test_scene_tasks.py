"""Every task over scenes: its layout, its bounds, its splits, and that its own answers are right."""

import numpy as np
import pytest

from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.data.scenes.captions import parse
from omniimage.data.scenes.grader import grade
from omniimage.data.scenes.outlines import outlines
from omniimage.data.scenes.tasks import TASKS
from omniimage.data.scenes.wording import count_words
from omniimage.data.scenes.world import (
  GRIDS,
  MIN_CELL,
  Scene,
  SceneObject,
  World,
  draw_scene,
  render,
  scene_of,
  split_of,
)

LAYOUTS = {  # T and I: given; t and i: to be answered
  "text_to_image": "Ti",
  "caption": "It",
  "questions": "I" + "Tt" * 3,  # or fewer exchanges
  "edit": "ITi",
  "sketch": "ITi",
  "conversation": "TiTiTiTi",
}
STAR = SceneObject("star", "red", "large", 0, 0)
RING = SceneObject("ring", "blue", "small", 1, 1)


def layout(turns) -> str:
  letters = [("T" if isinstance(turn, TextTurn) else "I", turn.is_target) for turn in turns]
  return "".join(letter.lower() if is_target else letter for letter, is_target in letters)


def records(grid: int, n: int, split: str = "train"):
  return [scene_of(i, split, grid=grid, min_objects=1, max_objects=grid**2) for i in range(n)]


def seen(turn: ImageTurn, grid: int) -> Scene:
  found = grade(turn.image, grid)
  assert not found.unclear
  return found.scene


def test_every_task_has_its_layout_here():
  assert set(LAYOUTS) == set(TASKS)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(("grid", "size"), [(2, 13), (2, 32), (3, 48), (4, 25), (5, 33), (5, 80)])
def test_a_record_is_laid_out_alike_on_every_grid_and_size_and_its_own_answer_is_right(name, grid, size):
  assert size >= MIN_CELL * grid
  task = TASKS[name](World(grid, size))
  for index, scene in enumerate(records(grid, 12)):
    turns = task.turns(scene, np.random.default_rng(index))
    laid_out = layout(turns)
    assert laid_out == LAYOUTS[name][: len(laid_out) if name == "questions" else None]
    assert [turn.text for turn in turns if isinstance(turn, TextTurn)] == task.texts(
      scene, np.random.default_rng(index)
    )
    images = [turn for turn in turns if isinstance(turn, ImageTurn)]
    assert len(images) == task.images and all(turn.image.shape == (size, size, 3) for turn in images)
    before = (turns[0], turns[-2]) if name == "questions" else tuple(turns[:-1])
    assert task.target(turns) is turns[-1] and task.prompt(turns) == before
    grader = task.grader
    if name == "conversation":
      score = grader.score(grader.expected(turns), grader.grade(np.stack([turn.image for turn in images])))
      assert all(one.exact for one in score)
    elif isinstance(turns[-1], TextTurn):
      (graded,) = grader.grade([turns[-1].text])
      score = grader.score(grader.expected(turns), graded)
      assert score is True if name == "questions" else score.exact
    else:
      (graded,) = grader.grade(turns[-1].image[None])
      assert grader.score(grader.expected(turns), graded).exact


@pytest.mark.parametrize("name", TASKS)
def test_twenty_and_more_objects_on_25_cells_are_asked_for_told_and_drawn(name):
  task = TASKS[name](World(5, 80))
  for index, number in enumerate((20, 22, 24, 25)):
    scene = scene_of(index, "test", grid=5, min_objects=number, max_objects=number)
    turns = task.turns(scene, np.random.default_rng(index))
    first = next(turn for turn in turns if isinstance(turn, ImageTurn) and (name != "sketch" or turn.is_target))
    assert seen(first, 5) == scene and len(scene.objects) == number
    assert sum(map(count_words, task.texts(scene, np.random.default_rng(index)))) <= task.bound(number, count_words)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("grid", GRIDS)
def test_no_conversation_is_longer_than_its_bound(name, grid):
  task, rng = TASKS[name](World(grid, 64)), np.random.default_rng(grid)
  for num_objects in {1, 2, 3, grid**2 - 1, grid**2}:
    bound = task.bound(num_objects, count_words)
    for _ in range(120):
      texts = task.texts(draw_scene(rng, grid, num_objects), rng)
      assert sum(map(count_words, texts)) <= bound, texts


@pytest.mark.parametrize(
  ("name", "grid", "num_objects", "reached"),
  [
    ("questions", 3, 5, 0.75),  # objects that fail at the last word, three times, are rare
    ("edit", 3, 5, 1.0),
    ("edit", 5, 9, 1.0),
    ("sketch", 2, 2, 1.0),
    ("conversation", 2, 3, 0.8),
  ],
)
def test_the_bound_is_reached(name, grid, num_objects, reached):
  task, rng = TASKS[name](World(grid, 64)), np.random.default_rng(0)
  drawn = [task.texts(draw_scene(rng, grid, num_objects), rng) for _ in range(3000)]
  assert max(sum(map(count_words, texts)) for texts in drawn) >= reached * task.bound(num_objects, count_words)


@pytest.mark.parametrize("name", ["edit", "conversation"])
def test_training_never_paints_a_held_out_scene(name):
  task = TASKS[name](World(2, 16))
  for index, scene in enumerate(records(2, 150)):
    turns = task.turns(scene, np.random.default_rng(index))
    assert {split_of(seen(turn, 2)) for turn in turns if isinstance(turn, ImageTurn)} == {"train"}


@pytest.mark.parametrize("name", ["edit", "conversation"])
def test_held_out_conversations_show_held_out_scenes(name):
  task = TASKS[name](World(3, 24))
  for index, scene in enumerate(records(3, 30, "test")):
    turns = task.turns(scene, np.random.default_rng(index))
    assert {split_of(seen(turn, 3)) for turn in turns if isinstance(turn, ImageTurn)} == {"test"}


def test_a_full_scene_without_a_held_out_neighbor_is_still_edited():
  task = TASKS["edit"](World(2, 16))
  for index in range(3, 400, 4):  # records of four objects
    turns = task.turns(scene_of(index, "test", grid=2, min_objects=1, max_objects=4), np.random.default_rng(index))
    assert seen(turns[0], 2) != seen(turns[2], 2)


def test_without_its_instruction_a_conversation_keeps_what_was_drawn():
  turns = {
    name: row(World(2, 16)).turns(Scene(2, (STAR, RING)), np.random.default_rng(0)) for name, row in TASKS.items()
  }
  left = {name: TASKS[name](World(2, 16)).without_condition(own) for name, own in turns.items()}
  for name, own in turns.items():
    assert [turn.role for turn in left[name]] == [turn.role for turn in own], "an empty turn is a turn"
  assert list(left.pop("questions")) == turns["questions"]
  assert {name: layout(turn for turn in own if getattr(turn, "text", "shown")) for name, own in left.items()} == {
    "text_to_image": "i",
    "caption": "It",
    "edit": "Ii",
    "sketch": "Ii",
    "conversation": "TiTiTii",
  }


# -------------------------------------------------------------------------------------------------------------- sketch


@pytest.mark.parametrize(("size", "levels"), [(13, 2), (16, 2.5), (32, 8), (128, 15)])
def test_outlines_of_different_shapes_and_sizes_differ(size, levels):
  kinds = [(shape, size) for shape in ("circle", "square", "triangle", "star", "cross", "diamond", "heart", "ring")
           for size in ("small", "large")]  # fmt: skip
  drawn = [outlines(Scene(2, (SceneObject(shape, "red", own, 0, 0),)), size).astype(float) for shape, own in kinds]
  apart = [np.sqrt(np.mean((one - other) ** 2)) for i, one in enumerate(drawn) for other in drawn[:i]]
  assert min(apart) > levels, "of 255, over a picture that is three quarters empty"


def test_a_sketch_tells_no_color_and_stays_within_its_shapes():
  scene = scene_of(7, "train", grid=3, min_objects=9, max_objects=9)
  recolored = Scene(3, tuple(SceneObject(o.shape, "pink", o.size, o.row, o.column) for o in scene.objects))
  sketch = outlines(scene, 96)
  assert np.array_equal(sketch, outlines(recolored, 96))
  inside = (render(recolored, 96) != render(Scene(3, ()), 96)).any(-1)
  drawn = (sketch != render(Scene(3, ()), 96)).any(-1)
  assert not (drawn & ~inside).any() and 0.2 < drawn.sum() / inside.sum() < 0.8
  assert grade(sketch, 3).scene.objects == (), "a sketch is no picture of its scene"


# ------------------------------------------------------------------------------------------------------------- caption


@pytest.fixture
def captions():
  return TASKS["caption"](World(2, 32)).grader


SCENE = Scene(2, (STAR, RING))
CAPTION = "a large red star in the top left and a small blue ring at the lower right"


@pytest.mark.parametrize(
  ("text", "wrong", "exact"),
  [
    (CAPTION, ((), ()), True),
    (f" An image with {CAPTION}. ", ((), ()), True),
    ("a tiny blue ring in the bottom right; one big red star at the upper left", ((), ()), True),
    ("a large red star in the top left", ((), ("missing",)), False),
    ("a large pink star in the top left, a small blue ring at the lower right", (("color",), ()), False),
    ("a large red star in the top left and a small blue ring in the top right", ((), ("position",)), False),
    (f"{CAPTION} and a large red star in the top right", ((), ()), False),
    (f"{CAPTION} and and", ((), ()), False),
    (f"{CAPTION} {CAPTION}", ((), ()), False),
    (f"{CAPTION} and {CAPTION}", ((), ()), False),
    ("what a large red star in the top left", ((), ("missing",)), False),
    (f"{CAPTION} and a small pink heart in the top left", (("unclear",), ()), False),
    ("", (("missing",), ("missing",)), False),
    ("star red large <image> \ufffd 星 a a a", (("missing",), ("missing",)), False),
    ("a large red star in the top leftmost", (("missing",), ("missing",)), False),
  ],
)
def test_any_text_is_graded_as_a_caption(captions, text, wrong, exact):
  (told,) = captions.grade([text])
  score = captions.score(SCENE, told)
  assert score.wrong == wrong and score.exact == exact


def test_telling_every_object_there_could_be_wins_nothing(captions):
  everything = ", ".join(
    f"a {size} {color} {shape} in the {row} {column}"
    for size in ("small", "large") for color in ("red", "blue") for shape in ("star", "ring")
    for row in ("top", "bottom") for column in ("left", "right")
  )  # fmt: skip
  (told,) = captions.grade([everything])
  assert captions.score(SCENE, told).bound == (False, False)


def test_the_expected_scene_is_that_of_the_caption():
  task = TASKS["caption"](World(3, 48))
  for index, scene in enumerate(records(3, 20)):
    turns = task.turns(scene, np.random.default_rng(index))
    assert task.grader.expected(turns) == scene == parse(turns[1].text, 3) == seen(turns[0], 3)
