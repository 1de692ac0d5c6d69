"""Text→image: a caption, then its scene as the target."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from omniimage.data import tasks
from omniimage.data.conversation import Turn
from omniimage.data.scenes.captions import caption, caption_bound, parse
from omniimage.data.scenes.grader import Graded, Score, grade_many, score
from omniimage.data.scenes.wording import Cost
from omniimage.data.scenes.world import CENTERED, MIN_CELL, Scene, Shifts, World, render
from omniimage.data.tasks import text_of


class TextToImage(tasks.TextToImage):
  images, exchanges = 1, 1

  def __init__(self, world: World):
    self._world, self.grader = world, BindingGrader(world.grid, world.shifts)

  def turns(self, record: Scene, rng: np.random.Generator) -> list[Turn]:
    return super().turns((*self.texts(record, rng), render(record, self._world.image_size)), rng)

  def texts(self, record: Scene, rng: np.random.Generator) -> list[str]:
    return [caption(record, rng)]

  def bound(self, num_objects: int, cost: Cost) -> int:
    return caption_bound(num_objects, self._world.grid, cost)


@dataclass(frozen=True)
class BindingGrader:
  """Does a picture show the scene that its caption describes, object by object, wherever in its cell each stands of
  where it may?"""

  grid: int
  shifts: Shifts = CENTERED
  suite: ClassVar[str] = "binding"

  @property
  def least_pixels(self) -> float:
    """Along a side of a picture; smaller ones cannot be graded."""
    return MIN_CELL * self.grid

  def expected(self, turns: Sequence[Turn]) -> Scene:
    return parse(text_of(turns), self.grid)

  def grade(self, answers: np.ndarray) -> list[Graded]:
    """Of pictures (n,S,S,3), uint8 or float in [-1, 1]."""
    return grade_many(answers, self.grid, self.shifts)

  def score(self, expected: Scene, graded: Graded) -> Score:
    return score(expected, graded)
