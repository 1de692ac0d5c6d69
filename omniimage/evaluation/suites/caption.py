"""Captions: does what a model writes about held-out scenes tell every object, and nothing else?"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from omniimage.data.scenes.tasks.caption import CaptionScore, Told
from omniimage.data.scenes.world import Scene
from omniimage.data.sources.source import Source
from omniimage.evaluation.held_out import conversations, graded_by, ungraded
from omniimage.evaluation.markup import Marked, table
from omniimage.evaluation.replies import written
from omniimage.evaluation.suites.binding import cell_frame, faults, said, shares
from omniimage.evaluation.suites.suite import Pictures, Result, Suite, counted, percent
from omniimage.sampling.generate import Generator

NAME = "caption"  # as the task's grader calls it


@dataclasses.dataclass(frozen=True, eq=False)
class Captions:
  """What was written about n scenes, what it tells of them, and how that fits their pictures (n, H, W, 3) uint8."""

  scenes: tuple[Scene, ...]
  images: np.ndarray
  texts: Sequence[str]
  told: Sequence[Told]
  scores: Sequence[CaptionScore]

  def figures(self) -> dict:
    """`objects`: share of the objects that are told rightly; `captions`: of the texts that tell all of them and say
    nothing else; `mistakes`: how often each thing was wrong, "other words" being texts that are not all caption."""
    found = shares(self.scenes, self.scores)
    other = sum(bool(score.rest) for score in self.scores)
    mistakes = found["mistakes"] | ({"other words": other} if other else {})
    captions = found.pop("scenes")
    return {**found, "mistakes": mistakes, "captions": captions, "prompts": len(self.texts)}

  def pictures(self) -> Pictures:
    marked = []
    for scene, image, told in zip(self.scenes, self.images, self.told):
      wrong = faults(scene, told)
      notes = [said(fault) for fault in wrong] + ([f"also says: {told.rest}"] if told.rest else [])
      marked.append(Marked(image, [cell_frame(fault.cell, scene.grid) for fault in wrong], notes))
    wrong = [i for i, score in enumerate(self.scores) if not score.exact]
    return Pictures(tuple(self.texts), self.images, {"wrongly told": marked}, wrong)


class CaptionSuite(Suite):
  needs = "turns"

  def misfit(self, source: Source, learnt: str) -> str:
    return "" if graded_by(source, NAME) else ungraded(learnt)

  def run(self, generator: Generator, number: int, seed: int, batch: int, earlier: Mapping[str, Result]) -> Captions:
    return captions(generator, number, seed, batch)

  def section(self, figures: Mapping) -> str:
    counts = list(figures["by_count"])
    header = ["", "objects told", *(f"of {count} there" for count in counts), "captions right", "what was wrong"]
    mistakes = ", ".join(f"{name} {count}" for name, count in figures["mistakes"].items()) or "nothing"
    by_count = [percent(figures["by_count"][count]) for count in counts]
    row = ["written", percent(figures["objects"]), *by_count, percent(figures["captions"]), mistakes]
    used = counted(figures["prompts"], figures, "held-out scenes")
    return (
      f"<p>{used}. An object is told if its shape, color, size and cell are; a caption is right if it tells all "
      f"objects and nothing else.</p>{table(header, [row])}"
    )

  def lines(self, figures: Mapping) -> list[str]:
    objects, captions = percent(figures["objects"]), percent(figures["captions"])
    return [
      f"{NAME:<26}{'objects told':>14}{'captions right':>16}",
      f"  {'written':<24}{objects:>14}{captions:>16}",
      f"  {counted(figures['prompts'], figures, 'held-out scenes')}",
    ]


def captions(generator: Generator, prompts: int, seed: int, batch: int = 64) -> Captions:
  """Writes and grades captions of the first `prompts` different scenes of the test split. UserError if the source has
  no such task."""
  task, found = conversations(generator, NAME, prompts, seed)
  texts = written(generator, [task.prompt(turns) for turns in found], seed, batch)
  scenes = tuple(task.grader.expected(turns) for turns in found)
  told = task.grader.grade(texts)
  scores = [task.grader.score(scene, one) for scene, one in zip(scenes, told)]
  return Captions(scenes, np.stack([turns[0].image for turns in found]), texts, told, scores)
