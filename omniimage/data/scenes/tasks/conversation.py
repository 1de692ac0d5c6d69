"""Conversation: a scene is asked for, and then changed three times; every picture is a target.

"it" is the object that was added or changed last: "draw a red star in the top left", "now make it larger", "add a blue
ring below it", "move it down".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from omniimage.data import tasks
from omniimage.data.conversation import ImageTurn, TextTurn, Turn
from omniimage.data.scenes.captions import caption, caption_bound
from omniimage.data.scenes.edits import change_bound, draw_change
from omniimage.data.scenes.grader import Graded, Score, grade_many, score
from omniimage.data.scenes.wording import Cost, longest, pick
from omniimage.data.scenes.world import CENTERED, MIN_CELL, HeldOut, Scene, Shifts, World, render

EXCHANGES = 4  # an instruction and its picture each
_REQUESTS = ("draw ", "paint ", "make ", "draw a picture of ")
_FOLLOWING = ("", "", "now ", "and now ")


class Conversation(tasks.TextToImage):
  images = exchanges = EXCHANGES

  def __init__(self, world: World):
    self._world, self.grader = world, ConversationGrader(world.grid, world.shifts)

  def turns(self, record: Scene, rng: np.random.Generator) -> list[Turn]:
    turns = []
    for text, scene in _exchanges(record, rng, self._world.held_out):
      turns += [TextTurn(text, False), ImageTurn(render(scene, self._world.image_size), True)]
    return turns

  def texts(self, record: Scene, rng: np.random.Generator) -> list[str]:
    return [text for text, _ in _exchanges(record, rng, self._world.held_out)]

  def bound(self, num_objects: int, cost: Cost) -> int:
    change = longest(_FOLLOWING, cost) + change_bound(self._world.grid, cost, refers_back=True)
    return caption_bound(num_objects, self._world.grid, cost, _REQUESTS) + (EXCHANGES - 1) * change


@dataclass(frozen=True)
class ConversationGrader:
  """Does each picture of a conversation show the scene as it is to be by then?"""

  grid: int
  shifts: Shifts = CENTERED
  suite: ClassVar[str] = "conversation"

  @property
  def least_pixels(self) -> float:
    """Along a side of a picture; smaller ones cannot be graded."""
    return MIN_CELL * self.grid

  def expected(self, turns: Sequence[Turn]) -> tuple[Scene, ...]:
    """Of each picture, in order."""
    images = np.stack([turn.image for turn in turns if isinstance(turn, ImageTurn)])
    return tuple(graded.scene for graded in self.grade(images))

  def grade(self, answers: np.ndarray) -> list[Graded]:
    """Of the pictures of a conversation (n,S,S,3), uint8 or float in [-1, 1]."""
    return grade_many(answers, self.grid, self.shifts)

  def score(self, expected: Sequence[Scene], graded: Sequence[Graded]) -> tuple[Score, ...]:
    return tuple(score(scene, seen) for scene, seen in zip(expected, graded))


def _exchanges(record: Scene, rng: np.random.Generator, held_out: HeldOut) -> list[tuple[str, Scene]]:
  """What is asked for, and the scene after it."""
  exchanges, scene = [(caption(record, rng, _REQUESTS), record)], record
  it = record.objects[0] if len(record.objects) == 1 else None
  for _ in range(EXCHANGES - 1):
    change = draw_change(scene, rng, it, held_out)
    exchanges.append((pick(_FOLLOWING, rng) + change.instruction, change.scene))
    scene, it = change.scene, change.it
  return exchanges
