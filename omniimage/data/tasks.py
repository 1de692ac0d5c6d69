"""Tasks: what a conversation gives the model, what it asks for, and how an answer is judged.

A task is a layout of turns, never a part of the model. A source says of every record which task it is; those over
scenes are a table, `data/scenes/tasks`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from omniimage.data.conversation import ImageTurn, TextTurn, Turn


class Grader(Protocol):
  """Judges the answers of a task exactly, without a learned part.

  Attributes:
    suite: the suite of `launch.evaluate` that reads its scores.
  """

  suite: str

  def expected(self, turns: Sequence[Turn]) -> Any:
    """What a right answer to this conversation shows or says."""

  def grade(self, answers: Sequence[Any]) -> Sequence[Any]:
    """What each answer, images (n,H,W,3) or n texts, shows or says."""

  def score(self, expected: Any, graded: Any) -> Any:
    """How one of them answers what was expected."""


class Task(Protocol):
  """A layout of turns.

  Attributes:
    grader: None where nothing but an eye can tell a right answer.
  """

  grader: Grader | None

  def turns(self, record: Any, rng: np.random.Generator) -> list[Turn]:
    """A record as a conversation; what a record is, the source and its tasks agree on."""

  def without_condition(self, turns: Sequence[Turn]) -> Sequence[Turn]:
    """What is left of the conversation where guidance (Ho & Salimans 2022) leaves out what to draw: the words that ask
    for it go, and what is to be changed stays. `without_words` is what sampling compares with."""

  def prompt(self, turns: Sequence[Turn]) -> Sequence[Turn]:
    """What the model is given before it answers; empty without a target."""

  def target(self, turns: Sequence[Turn]) -> Turn | None:
    """The answer that the conversation has; None where it is no conversation of this task."""


class Writing:
  """Base of the tasks whose answer is the last text that is to be written."""

  def without_condition(self, turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Guidance is of pictures alone: a conversation that paints nothing stays whole."""
    return tuple(turns)

  def prompt(self, turns: Sequence[Turn]) -> tuple[Turn, ...]:
    return tuple(turns[: _place_of_target(turns, TextTurn) or 0])

  def target(self, turns: Sequence[Turn]) -> TextTurn | None:
    """The last text that is to be written."""
    place = _place_of_target(turns, TextTurn)
    return None if place is None else turns[place]


class TextToImage:
  """Text, then the image it asks for. A record is the two of them."""

  grader: Grader | None = None

  def turns(self, record: tuple[str, np.ndarray], rng: np.random.Generator) -> list[Turn]:
    text, image = record
    return [TextTurn(text, is_target=False), ImageTurn(image, is_target=True)]

  def without_condition(self, turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """`without_words` before the target; what paints nothing stays whole."""
    place = _place_of_target(turns)
    return tuple(turns) if place is None else without_words(turns, place)

  def prompt(self, turns: Sequence[Turn]) -> tuple[Turn, ...]:
    return tuple(turns[: _place_of_target(turns) or 0])

  def target(self, turns: Sequence[Turn]) -> ImageTurn | None:
    """The last image that is to be painted."""
    place = _place_of_target(turns)
    return None if place is None else turns[place]


class Conversation(TextToImage):
  """Whatever a user and an assistant say and show. The answer is the last image that is to be painted, or the last text
  that is to be said where none is. A record is (text or image, whether the assistant's) of each turn, in order."""

  def turns(self, record: Sequence[tuple[str | np.ndarray, bool]], rng: np.random.Generator) -> list[Turn]:
    return [(TextTurn if isinstance(said, str) else ImageTurn)(said, is_target=own) for said, own in record]

  def prompt(self, turns: Sequence[Turn]) -> tuple[Turn, ...]:
    return tuple(turns[: self._answer(turns) or 0])

  def target(self, turns: Sequence[Turn]) -> Turn | None:
    place = self._answer(turns)
    return None if place is None else turns[place]

  def _answer(self, turns: Sequence[Turn]) -> int | None:
    painted = _place_of_target(turns)
    return _place_of_target(turns, TextTurn) if painted is None else painted


def without_words(turns: Sequence[Turn], place: int) -> tuple[Turn, ...]:
  """A conversation in which nothing is said to ask for what stands at a place: the words of the last turn of the user
  before it are empty, and those of the answer up to it. Images stay, so does what was said and shown before, and so
  do the turns: of text→image `<user> <assistant> <image> …` is left."""
  asked = place
  while asked and turns[asked - 1].role == turns[place].role:
    asked -= 1
  while asked and turns[asked - 1].role != turns[place].role:
    asked -= 1
  words = [isinstance(turn, TextTurn) and asked <= i < place for i, turn in enumerate(turns)]
  return tuple(dataclasses.replace(turn, text="") if empty else turn for turn, empty in zip(turns, words))


def text_of(turns: Sequence[Turn]) -> str:
  """All that is said in these turns."""
  return " ".join(turn.text for turn in turns if isinstance(turn, TextTurn) and turn.text)


def _place_of_target(turns: Sequence[Turn], kind: type[Turn] = ImageTurn) -> int | None:
  """The index of the last target of a kind."""
  return max((i for i, turn in enumerate(turns) if isinstance(turn, kind) and turn.is_target), default=None)
