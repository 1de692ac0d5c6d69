"""A new task over scenes is one file and one row: this one is written here, and nothing else is told of it."""

import dataclasses

import numpy as np
import pytest

from omniimage.data.batches import Batches
from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.data.scenes.grader import grade, grade_many
from omniimage.data.scenes.tasks import TASKS
from omniimage.data.scenes.world import Scene, render
from omniimage.data.sources import open_source
from omniimage.evaluation.held_out import graded_by
from omniimage.settings import from_config
from tests import small

# ------------------------------------------------------------------------------------------------------ the new file


class PaintRed:
  """An edit: a picture, an instruction, and the picture with all its objects red. Graded by the whole scene."""

  images, exchanges, suite = 2, 1, "edits"

  def __init__(self, world):
    self.grader, self._grid, self._image_size = self, world.grid, world.image_size

  def turns(self, record, rng):
    red = Scene(self._grid, tuple(dataclasses.replace(item, color="red") for item in record.objects))
    before, after = (render(scene, self._image_size) for scene in (record, red))
    return [
      ImageTurn(before, False),
      TextTurn(*self.texts(record, rng), False),
      ImageTurn(after, True),
    ]

  def texts(self, record, rng):
    return [f"{rng.choice(['paint', 'color'])} all red"]

  def bound(self, num_objects, cost):
    return max(map(cost, ("paint all red", "color all red")))

  def without_condition(self, turns):
    return [turn for turn in turns if isinstance(turn, ImageTurn)]

  def prompt(self, turns):
    return turns[:2]

  def target(self, turns):
    return turns[2]

  def expected(self, turns):
    return grade(self.target(turns).image, self._grid).scene

  def grade(self, answers):
    return grade_many(answers, self._grid)

  def score(self, expected, graded):
    return graded.scene == expected


# --------------------------------------------------------------------------------------------------------- the tests


@pytest.fixture
def source(monkeypatch):
  """The scenes by this task, as half of the conversations without their instruction would be read."""
  monkeypatch.setitem(TASKS, "paint_red", PaintRed)
  changes = {"data.source.tasks": ("paint_red",), "data.source.max_objects": 4}
  s = from_config(small.config(**changes, **{"data.images_per_row": 4, "data.drop_text": 0.5}))
  vocabulary = small.omni(s).vocabulary
  return open_source(s.data, "train", s.buckets, small.text_tokenizer(), vocabulary), s, vocabulary


def test_what_it_changes_stays_where_its_instruction_is_dropped(source):
  source, s, vocabulary = source
  batches = Batches(source, s.data, vocabulary, small.text_tokenizer(), s.buckets, s.seed)
  batch = batches.batch(0, rows=64)
  assert not batches.bad_records
  texts = []
  for tokens, segments in zip(batch["tokens"], batch["segments"]):
    for segment in range(1, segments.max() + 1):
      own = tokens[segments == segment]
      assert (own == vocabulary.image).sum() == 2
      texts.append(small.text_tokenizer().decode(own[own < vocabulary.text_size]))
  assert set(texts) == {"", "paint all red", "color all red"} and 0.3 < np.mean([not text for text in texts]) < 0.7


def test_its_suite_finds_its_grader(source):
  source, *_ = source
  task = graded_by(source, "edits")
  assert task is source.task(0) and graded_by(source, "binding") is None
  turns = source.record(3, np.random.default_rng(0))
  right, wrong = task.grader.grade(np.stack([turns[2].image, turns[0].image]))
  assert task.grader.score(task.grader.expected(turns), right)
  assert not task.grader.score(task.grader.expected(turns), wrong)
