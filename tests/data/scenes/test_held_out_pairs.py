"""Colors of shapes that training never shows together, and a split to choose settings by."""

import collections

import numpy as np
import pytest

from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.data.scenes.distinct import distinct_scenes
from omniimage.data.scenes.grader import grade
from omniimage.data.scenes.questions import draw_question
from omniimage.data.scenes.tasks import TASKS
from omniimage.data.scenes.world import SPLITS, HeldOut, Scene, SceneObject, World, draw_scene, scene_of, split_of
from omniimage.data.sources.scenes import ScenesSettings, ScenesSource
from omniimage.errors import SettingsError
from omniimage.size import Size
from tests import small

PAIRS = frozenset({("red", "star"), ("blue", "ring"), ("pink", "cross"), ("cyan", "heart"), ("black", "circle")})
HELD_OUT = HeldOut(PAIRS, validation=0.1)
SETTINGS = {"grid": 3, "min_objects": 1, "max_objects": 4, "tasks": ("text_to_image",)}


def pairs_of(scene: Scene) -> set[tuple[str, str]]:
  return {(item.color, item.shape) for item in scene.objects}


@pytest.mark.parametrize("split", SPLITS)
def test_records_of_a_split_are_its_own_and_pairs_are_in_one_alone(split):
  scenes = [scene_of(i, split, grid=3, min_objects=1, max_objects=9, held_out=HELD_OUT) for i in range(200)]
  assert {HELD_OUT.split_of(scene) for scene in scenes} == {split}
  found = set().union(*map(pairs_of, scenes))
  assert found == PAIRS if split == "unseen" else not found & PAIRS


def test_shares_of_the_splits_are_those_asked_for():
  rng = np.random.default_rng(0)
  splits = collections.Counter(HELD_OUT.split_of(draw_scene(rng, 3, 1)) for _ in range(8000))
  shares = {split: count / 8000 for split, count in splits.items()}
  unseen = len(PAIRS) / 64
  assert shares["unseen"] == pytest.approx(unseen, abs=0.015)
  assert shares["test"] == pytest.approx(0.05 * (1 - unseen), abs=0.01)
  assert shares["validation"] == pytest.approx(0.95 * 0.1 * (1 - unseen), abs=0.015)


def test_scenes_of_test_stay_those_of_test_whatever_else_is_held_out():
  rng = np.random.default_rng(1)
  for _ in range(2000):
    scene = draw_scene(rng, 2, 2)
    if not pairs_of(scene) & PAIRS:
      assert (HELD_OUT.split_of(scene) == "test") == (split_of(scene) == "test")


@pytest.mark.parametrize("name", TASKS)
def test_no_task_of_training_shows_or_names_a_pair(name):
  world = World(2, 32, held_out=HELD_OUT)
  task, shown = TASKS[name](world), set()
  for index in range(150):
    scene = scene_of(index, "train", grid=2, min_objects=1, max_objects=4, held_out=HELD_OUT)
    turns = task.turns(scene, np.random.default_rng(index))
    assert not any(HELD_OUT.tells(turn.text) for turn in turns if isinstance(turn, TextTurn))
    for turn in turns:
      if isinstance(turn, ImageTurn) and not (name == "sketch" and not turn.is_target):
        found = grade(turn.image, 2).scene
        assert HELD_OUT.split_of(found) == "train"
        shown |= pairs_of(found)
  assert len(shown) > 50, "and most of the others"


def test_questions_about_unseen_pairs_name_them_and_others_stay_of_even_chances():
  rng, answers, named = np.random.default_rng(0), collections.Counter(), 0
  for index in range(1500):
    scene = scene_of(index, "train", grid=2, min_objects=3, max_objects=4, held_out=HELD_OUT)
    asked = draw_question(scene, rng, HELD_OUT)
    answers[asked.answer] += asked.question.startswith("is there a")
    unseen = scene_of(index, "unseen", grid=2, min_objects=3, max_objects=4, held_out=HELD_OUT)
    named += HELD_OUT.tells(draw_question(unseen, rng, HELD_OUT).question)
  number = answers["yes"] + answers["no"]
  assert number > 200 and abs(answers["yes"] / number - 0.5) < 3.5 * 0.5 / number**0.5
  assert named > 100


def test_distinct_scenes_of_one_object_end_where_there_are_no_more():
  counted = {split: len(list(_singles(split))) for split in SPLITS}
  assert sum(counted.values()) == 8 * 8 * 2 * 4 and counted["unseen"] == 5 * 2 * 4 and min(counted.values()) > 5


def _singles(split: str):
  return distinct_scenes(split, 2**14, grid=2, min_objects=1, max_objects=1, held_out=HELD_OUT)


def test_without_pairs_every_record_is_as_it_was():
  assert scene_of(1, "train", grid=2, min_objects=1, max_objects=4, held_out=HeldOut()) == Scene(
    2, (SceneObject("cross", "black", "large", 0, 0), SceneObject("cross", "pink", "large", 1, 0))
  )


# -------------------------------------------------------------------------------------------------------------- source


@pytest.mark.parametrize(
  ("unseen", "message"),
  [
    (("red stars",), "data.source.unseen has 'red stars'; expected a color and a shape, as 'red star'"),
    (("star red",), "unseen has 'star red'"),
    (
      tuple(f"{color} star" for color in ("red", "yellow", "green", "cyan", "blue", "purple", "pink", "black")),
      "leaves nothing to learn 'star' from",
    ),
  ],
)
def test_what_cannot_be_held_out_is_one_line(unseen, message):
  with pytest.raises(SettingsError, match=message) as error:
    ScenesSettings("scenes", **SETTINGS, unseen=unseen)
  assert "\n" not in str(error.value)


def test_a_source_opens_every_split_that_has_scenes():
  settings = ScenesSettings("scenes", **SETTINGS, unseen=("red star",), validation=0.05, jitter=2)
  for split in SPLITS:
    source = ScenesSource(settings, split, (Size(6, 6, 8),), small.text_tokenizer())
    text, _ = source.record(3, np.random.default_rng(0))
    assert ("red star" in text.text) == (split == "unseen")
    assert (
      len({source.record(i, np.random.default_rng(0))[1].image.tobytes() for _, i in zip(range(40), source.distinct())})
      == 40
    )
  plain = ScenesSettings("scenes", **SETTINGS)
  for split in ("validation", "unseen"):
    with pytest.raises(ValueError, match=f"split '{split}' has no scenes"):
      ScenesSource(plain, split, (Size(6, 6, 8),), small.text_tokenizer())
