"""Edit: a scene and an instruction, then the scene as it is to be changed as the target."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from omniimage.data import tasks
from omniimage.data.conversation import ImageTurn, TextTurn, Turn
from omniimage.data.scenes.edits import change_bound, draw_change, kind_of_change
from omniimage.data.scenes.grader import Graded, grade_many
from omniimage.data.scenes.wording import Cost
from omniimage.data.scenes.world import CENTERED, MIN_CELL, Scene, Shifts, World, render


class Edit(tasks.TextToImage):
  images, exchanges = 2, 1

  def __init__(self, world: World):
    self._world, self.grader = world, EditGrader(world.grid, world.shifts)

  def turns(self, record: Scene, rng: np.random.Generator) -> list[Turn]:
    change = draw_change(record, rng, held_out=self._world.held_out)
    before, after = (render(scene, self._world.image_size) for scene in (record, change.scene))
    return [ImageTurn(before, False), TextTurn(change.instruction, False), ImageTurn(after, True)]

  def texts(self, record: Scene, rng: np.random.Generator) -> list[str]:
    return [draw_change(record, rng, held_out=self._world.held_out).instruction]

  def bound(self, num_objects: int, cost: Cost) -> int:
    return change_bound(self._world.grid, cost)


@dataclass(frozen=True)
class Asked:
  """The scenes before and after an edit."""

  before: Scene
  after: Scene

  @property
  def kind(self) -> str:
    return kind_of_change(self.before, self.after)


@dataclass(frozen=True)
class EditScore:
  """How a picture answers an instruction.

  Attributes:
    done: what was to change is as it was asked for.
    kept: all else is as it was.
  """

  done: bool
  kept: bool

  @property
  def exact(self) -> bool:
    return self.done and self.kept


@dataclass(frozen=True)
class EditGrader:
  """Does a picture show the asked change and nothing else? Cells that differ before and after are those to change."""

  grid: int
  shifts: Shifts = CENTERED
  suite: ClassVar[str] = "edits"

  @property
  def least_pixels(self) -> float:
    """Along a side of a picture; smaller ones cannot be graded."""
    return MIN_CELL * self.grid

  def expected(self, turns: Sequence[Turn]) -> Asked:
    before, after = (graded.scene for graded in self.grade(np.stack([turns[0].image, turns[2].image])))
    return Asked(before, after)

  def grade(self, answers: np.ndarray) -> list[Graded]:
    """Of pictures (n,S,S,3), uint8 or float in [-1, 1]."""
    return grade_many(answers, self.grid, self.shifts)

  def score(self, expected: Asked, graded: Graded) -> EditScore:
    before, after, seen = (_cells(scene) for scene in (expected.before, expected.after, graded.scene))
    seen |= dict.fromkeys(graded.unclear, "unclear")
    to_change = {cell for cell in (*before, *after) if before.get(cell) != after.get(cell)}
    wrong = {cell for cell in (*after, *seen) if after.get(cell) != seen.get(cell)}
    return EditScore(done=not wrong & to_change, kept=not wrong - to_change)


def _cells(scene: Scene) -> dict:
  return {item.cell: item for item in scene.objects}
