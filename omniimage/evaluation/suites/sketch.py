"""Sketches: do the pictures show the scenes whose outlines were given, in the colors that were said?"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from omniimage.data.sources.source import Source
from omniimage.data.tasks import text_of
from omniimage.evaluation.held_out import conversations, graded_by, ungraded
from omniimage.evaluation.replies import painted
from omniimage.evaluation.suites.binding import Binding, BindingSuite, answered
from omniimage.evaluation.suites.suite import Pictures, Result
from omniimage.sampling.generate import Generator

NAME = "sketch"  # as the task's grader calls it


@dataclasses.dataclass(frozen=True, eq=False)
class Sketches(Binding):
  """As binding's, with the outlines (n, H, W, 3) uint8 that were given."""

  outlines: np.ndarray

  def pictures(self) -> Pictures:
    shown = super().pictures()
    return dataclasses.replace(shown, columns={"outlines": self.outlines, **shown.columns})


class SketchSuite(BindingSuite):
  name: ClassVar = NAME
  needs = "turns"

  def misfit(self, source: Source, learnt: str) -> str:
    return "" if graded_by(source, NAME) else ungraded(learnt)

  def run(self, generator: Generator, number: int, seed: int, batch: int, earlier: Mapping[str, Result]) -> Sketches:
    return sketches(generator, number, seed, batch)


def sketches(generator: Generator, prompts: int, seed: int, batch: int = 64) -> Sketches:
  """Paints the first `prompts` different scenes of the test split after their outlines. UserError if the source has no
  such task."""
  task, found = conversations(generator, NAME, prompts, seed)
  grader, asked = task.grader, tuple(task.grader.expected(turns) for turns in found)
  drawing = painted(generator, [task.prompt(turns) for turns in found], seed, batch)
  shown = {"painted": drawing.images, "rendering": drawing.rendering}
  gradable = {kind: images for kind, images in shown.items() if images.shape[1] >= grader.least_pixels}
  answers = {kind: answered(grader, asked, images) for kind, images in gradable.items()}
  outlines, images = (np.stack([turns[place].image for turns in found]) for place in (0, 2))
  return Sketches(asked, tuple(text_of(turns) for turns in found), images, answers, outlines)
