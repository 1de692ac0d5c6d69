"""Questions: a scene and some questions, an answer to each as a target, which tells what it rests on."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from omniimage.data import tasks
from omniimage.data.conversation import ImageTurn, TextTurn, Turn
from omniimage.data.scenes.captions import SIZE_WORDS, places
from omniimage.data.scenes.questions import draw_question, phrase_bound
from omniimage.data.scenes.wording import Cost
from omniimage.data.scenes.world import Scene, World, render

EXCHANGES = 3  # of question and answer, or fewer: in all they look for as many phrases
_ARTICLES = ("a", "an", "one", "the")
_SAME = {
  **{word: size for size, words in SIZE_WORDS.items() for word in words},
  **{"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6"},
  **{"seven": "7", "eight": "8", "nine": "9", "ten": "10", "empty": "nothing", "yeah": "yes", "nope": "no"},
}


class Questions(tasks.Writing):
  """The last question, of any kind, is what is graded, asked by itself: the answers before it would tell of the
  picture."""

  images, exchanges = 1, EXCHANGES

  def __init__(self, world: World):
    self._world, self.grader = world, QuestionsGrader(world.grid)

  def turns(self, record: Scene, rng: np.random.Generator) -> list[Turn]:
    said = [TextTurn(text, is_target=bool(i % 2)) for i, text in enumerate(self.texts(record, rng))]
    return [ImageTurn(render(record, self._world.image_size), False), *said]

  def texts(self, record: Scene, rng: np.random.Generator) -> list[str]:
    asked = [draw_question(record, rng, self._world.held_out) for _ in range(EXCHANGES)]
    phrases = itertools.accumulate(len(one.about) for one in asked)
    fitting = [one for one, number in zip(asked, phrases) if number <= EXCHANGES]
    return [text for one in reversed(fitting) for text in (one.question, one.reasoned(record))]

  def prompt(self, turns: Sequence[Turn]) -> tuple[Turn, ...]:
    return turns[0], turns[-2]

  def bound(self, num_objects: int, cost: Cost) -> int:
    return EXCHANGES * phrase_bound(num_objects, self._world.grid, cost)


@dataclass(frozen=True)
class QuestionsGrader:
  """Is a text the answer, in whatever words mean the same? What it says before the last colon, which is what it rests
  on, is not graded."""

  grid: int
  suite: ClassVar[str] = "questions"

  def expected(self, turns: Sequence[Turn]) -> str:
    return self._meaning(turns[-1].text)

  def grade(self, answers: Sequence[str]) -> list[str]:
    return [self._meaning(answer) for answer in answers]

  def score(self, expected: str, graded: str) -> bool:
    return expected == graded

  def _meaning(self, answer: str) -> str:
    """The answer in the first of the words that mean the same."""
    words = answer.lower().strip().removesuffix(".").rpartition(":")[2].split()
    cell = _cells(self.grid).get(_name_of_place(words))
    if cell is not None:
      return f"row {cell[0] + 1}, column {cell[1] + 1}"
    if len(words) > 1 and words[0] in _ARTICLES:
      words = words[1:]
    return " ".join(_SAME.get(word, word) for word in words)


@functools.cache
def _cells(grid: int) -> dict[str, tuple[int, int]]:
  """The cells by their names."""
  return {_name_of_place(phrase.split()): cell for cell, phrases in places(grid).items() for phrase in phrases}


def _name_of_place(words: Sequence[str]) -> str:
  """ "in the top left" → "top left"."""
  return " ".join(itertools.dropwhile(lambda word: word in ("in", "at", "the"), words))
