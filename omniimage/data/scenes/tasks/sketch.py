"""Sketch→image: outlines and a text that says the color of each, then the scene as the target."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from omniimage.data import tasks
from omniimage.data.conversation import ImageTurn, TextTurn, Turn
from omniimage.data.scenes.captions import JOINERS, joined, joined_bound
from omniimage.data.scenes.outlines import outlines
from omniimage.data.scenes.tasks.text_to_image import BindingGrader
from omniimage.data.scenes.wording import Cost, longest, pick, reference, reference_bound
from omniimage.data.scenes.world import COLORS, Scene, World, render

_OPENINGS = ("make", "paint", "turn")
_SEEN = ("size", "shape")  # attributes that outlines show


class Sketch(tasks.TextToImage):
  images, exchanges = 2, 1

  def __init__(self, world: World):
    self._world, self.grader = world, SketchGrader(world.grid, world.shifts)

  def turns(self, record: Scene, rng: np.random.Generator) -> list[Turn]:
    (text,) = self.texts(record, rng)
    sketch, scene = outlines(record, self._world.image_size), render(record, self._world.image_size)
    return [ImageTurn(sketch, False), TextTurn(text, False), ImageTurn(scene, True)]

  def texts(self, record: Scene, rng: np.random.Generator) -> list[str]:
    order = (record.objects[i] for i in rng.permutation(len(record.objects)))
    phrases = [f"{reference(item, record, rng, _SEEN)} {item.color}" for item in order]
    return [f"{pick(_OPENINGS, rng)} {joined(phrases, pick(JOINERS, rng))}"]

  def bound(self, num_objects: int, cost: Cost) -> int:
    colored = reference_bound(self._world.grid, cost, _SEEN) + longest(COLORS, cost)
    return longest(_OPENINGS, cost) + num_objects * colored + joined_bound(num_objects, cost)


@dataclass(frozen=True)
class SketchGrader(BindingGrader):
  """As text→image, of the scene whose outlines were given."""

  suite: ClassVar[str] = "sketch"

  def expected(self, turns: Sequence[Turn]) -> Scene:
    (graded,) = self.grade(turns[-1].image[None])
    return graded.scene
