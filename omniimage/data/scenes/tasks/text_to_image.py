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
from omniimage.data.scenes.world import MIN_CELL, Scene, render
from omniimage.data.tasks import text_of


class TextToImage(tasks.TextToImage):
  images, exchanges = 1, 1

  def __init__(self, grid: int, image_size: int):
    self._grid, self._image_size, self.grader = grid, image_size, BindingGrader(grid)

  def turns(self, record: Scene, rng: np.random.Generator) -> list[Turn]:
    return super().turns((*self.texts(record, rng), render(record, self._image_size)), rng)

  def texts(self, record: Scene, rng: np.random.Generator) -> list[str]:
    return [caption(record, rng)]

  def bound(self, num_objects: int, cost: Cost) -> int:
    return caption_bound(num_objects, self._grid, cost)


@dataclass(frozen=True)
class BindingGrader:
  """Does a picture show the scene that its caption describes, object by object?"""

  grid: int
  suite: ClassVar[str] = "binding"

  @property
  def least_pixels(self) -> float:
    """Along a side of a picture; smaller ones cannot be graded."""
    return MIN_CELL * self.grid

  def expected(self, turns: Sequence[Turn]) -> Scene:
    return parse(text_of(turns), self.grid)

  def grade(self, answers: np.ndarray) -> list[Graded]:
    """Of pictures (n,S,S,3), uint8 or float in [-1, 1]."""
    return grade_many(answers, self.grid)

  def score(self, expected: Scene, graded: Graded) -> Score:
    return score(expected, graded)
