"""Edits of held-out scenes: is the asked change made, and nothing else?"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from omniimage.data.scenes.grader import Graded
from omniimage.data.scenes.tasks.edit import Asked, EditScore
from omniimage.data.sources.source import Source
from omniimage.data.tasks import text_of
from omniimage.evaluation.held_out import conversations, graded_by, ungraded
from omniimage.evaluation.markup import table
from omniimage.evaluation.replies import painted
from omniimage.evaluation.suites.binding import mark
from omniimage.evaluation.suites.suite import KINDS, Pictures, Result, Suite, counted, percent
from omniimage.sampling.generate import Generator

NAME = "edits"  # as the task's grader calls it


@dataclasses.dataclass(frozen=True, eq=False)
class Edits:
  """Pictures before, as they should be after, and as they were painted, (n, H, W, 3) uint8 each; `rendered` are the
  scores of the tokenizer's renderings."""

  instructions: Sequence[str]
  asked: Sequence[Asked]
  before: np.ndarray
  after: np.ndarray
  images: np.ndarray
  seen: Sequence[Graded]
  scores: Sequence[EditScore]
  rendered: Sequence[EditScore]

  def figures(self) -> dict:
    """The shares of the painted pictures, those by kind of change being of `exact`; those of the renderings, if they
    are large enough to be graded, under their name."""
    kinds = [asked.kind for asked in self.asked]
    number, exact = Counter(kinds), Counter(kind for kind, score in zip(kinds, self.scores) if score.exact)
    by_kind = {kind: exact[kind] / number[kind] for kind in sorted(number)}
    counts = {kind: number[kind] for kind in by_kind}
    figures = {**shares(self.scores), "by_kind": by_kind, "prompts_by_kind": counts, "prompts": len(self.scores)}
    return figures | ({"rendering": shares(self.rendered)} if self.rendered else {})

  def pictures(self) -> Pictures:
    marked = [mark(image, asked.after, seen) for image, asked, seen in zip(self.images, self.asked, self.seen)]
    wrong = [i for i, score in enumerate(self.scores) if not score.exact]
    return Pictures(tuple(self.instructions), self.after, {"before": self.before, KINDS["painted"]: marked}, wrong)


class EditsSuite(Suite):
  needs = "turns"

  def misfit(self, source: Source, learnt: str) -> str:
    return "" if graded_by(source, NAME) else ungraded(learnt)

  def run(self, generator: Generator, number: int, seed: int, batch: int, earlier: Mapping[str, Result]) -> Edits:
    return edits(generator, number, seed, batch)

  def section(self, figures: Mapping) -> str:
    kinds = list(figures["by_kind"])
    header = ["", "exactly so", "change made", "rest kept"]
    rows = [
      [KINDS[kind], *(percent(own[name]) for name in ("exact", "done", "kept"))]
      for kind, own in (("painted", figures), ("rendering", figures.get("rendering")))
      if own
    ]
    number = figures["prompts_by_kind"]
    by_kind = [["", *(f"{kind} ({number[kind]})" for kind in kinds)]]
    shown = [["exactly so", *(percent(figures["by_kind"][kind]) for kind in kinds)]]
    used = counted(figures["prompts"], figures, "edits of held-out scenes")
    return (
      f"<p>{used}. Graded cell by cell: a change is made if the cells that it is about show what was asked for; the "
      f"rest is kept if all others show what they did.</p>{table(header, rows)}{table(by_kind[0], shown)}"
    )

  def lines(self, figures: Mapping) -> list[str]:
    names = ("exact", "done", "kept")
    by_kind = "  ".join(f"{kind}: {percent(share)}" for kind, share in figures["by_kind"].items())
    return [
      f"{NAME:<26}{'exactly so':>14}{'change made':>14}{'rest kept':>14}",
      f"  {'painted':<24}" + "".join(f"{percent(figures[name]):>14}" for name in names),
      f"  {by_kind}",
      f"  {counted(figures['prompts'], figures, 'edits of held-out scenes')}",
    ]


def edits(generator: Generator, prompts: int, seed: int, batch: int = 64) -> Edits:
  """Edits the first `prompts` different scenes of the test split. UserError if the source has no such task."""
  task, found = conversations(generator, NAME, prompts, seed)
  grader, asked = task.grader, [task.prompt(turns) for turns in found]
  drawing = painted(generator, asked, seed, batch)
  expected = [grader.expected(turns) for turns in found]
  before, after = (np.stack([turns[place].image for turns in found]) for place in (0, 2))
  seen = grader.grade(drawing.images)
  gradable = drawing.rendering.shape[1] >= grader.least_pixels
  scores, rendered = (
    [grader.score(one, graded) for one, graded in zip(expected, own)]
    for own in (seen, grader.grade(drawing.rendering) if gradable else [])
  )
  return Edits([text_of(turns) for turns in found], expected, before, after, drawing.images, seen, scores, rendered)


def shares(scores: Sequence[EditScore]) -> dict[str, float]:
  """`exact`: the change was made and all else kept; `done`, `kept`: one of the two at least."""
  return {name: float(np.mean([getattr(score, name) for score in scores])) for name in ("exact", "done", "kept")}
