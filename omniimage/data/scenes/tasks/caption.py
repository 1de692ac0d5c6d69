"""Image→text: a scene, then a caption that tells every object as the target, in the order in which one reads.

Of the orders in which objects can be told, this one is what a picture says; any other is chance, and nothing to learn.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from omniimage.data import tasks
from omniimage.data.conversation import ImageTurn, TextTurn, Turn
from omniimage.data.scenes.captions import caption, caption_bound, read
from omniimage.data.scenes.grader import Score, score
from omniimage.data.scenes.wording import Cost
from omniimage.data.scenes.world import Scene, World, render
from omniimage.data.tasks import text_of


class Caption(tasks.Writing):
  images, exchanges = 1, 1

  def __init__(self, world: World):
    self._world, self.grader = world, CaptionGrader(world.grid)

  def turns(self, record: Scene, rng: np.random.Generator) -> list[Turn]:
    (text,) = self.texts(record, rng)
    return [ImageTurn(render(record, self._world.image_size), False), TextTurn(text, True)]

  def texts(self, record: Scene, rng: np.random.Generator) -> list[str]:
    return [caption(record, rng, is_shuffled=False)]

  def bound(self, num_objects: int, cost: Cost) -> int:
    return caption_bound(num_objects, self._world.grid, cost)


@dataclasses.dataclass(frozen=True)
class Told:
  """What a text tells of a scene.

  Attributes:
    scene: the objects that it tells, where it tells one of a cell.
    unclear: cells (row, column) of which it tells different things.
    rest: what else it says, or does twice; empty where all of it is a caption.
  """

  scene: Scene
  unclear: tuple[tuple[int, int], ...]
  rest: str


@dataclasses.dataclass(frozen=True)
class CaptionScore(Score):
  """As of a picture, told object by told object.

  Attributes:
    rest: what is no part of a caption.
  """

  rest: str

  @property
  def exact(self) -> bool:
    return super().exact and not self.rest


@dataclasses.dataclass(frozen=True)
class CaptionGrader:
  """Does a text tell the scene that its picture shows, object by object? Any text may be graded."""

  grid: int
  suite: ClassVar[str] = "caption"

  def expected(self, turns: Sequence[Turn]) -> Scene:
    """The scene of the caption that the conversation has."""
    objects, _ = read(text_of(turns), self.grid)
    return Scene(self.grid, tuple(objects))

  def grade(self, answers: Sequence[str]) -> list[Told]:
    return [self._told(answer) for answer in answers]

  def score(self, expected: Scene, graded: Told) -> CaptionScore:
    result = score(expected, graded)
    return CaptionScore(**vars(result), rest=graded.rest)

  def _told(self, answer: str) -> Told:
    objects, rest = read(answer, self.grid)
    if not rest and len(set(objects)) < len(objects):
      rest = "an object twice"
    by_cell: dict[tuple[int, int], set] = {}
    for item in objects:
      by_cell.setdefault(item.cell, set()).add(item)
    once = tuple(item for told in by_cell.values() if len(told) == 1 for item in told)
    return Told(Scene(self.grid, once), tuple(sorted(cell for cell, told in by_cell.items() if len(told) > 1)), rest)
