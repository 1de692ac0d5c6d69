"""Attribute binding: do the pictures of held-out scenes show what was asked, object by object?

The scenes' exact grader reads four pictures of every prompt, so that an error can be blamed on a part:

    tokens          painted by the diffusion decoder    rendered by the tokenizer
    sampled         painted                             rendering
    of the truth    true_tokens                         reconstruction

Of other systems tokens are whatever they plan a picture as, latents or an embedding, and painted is the picture they
give; what they do not have is left out.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from omniimage.data.scenes.grader import Graded, Score, score
from omniimage.data.scenes.tasks.caption import Told
from omniimage.data.scenes.world import Scene
from omniimage.data.sources.source import Source
from omniimage.data.tasks import Grader
from omniimage.evaluation.held_out import conversations, drawn, graded_by, in_batches, prompt_and_target, ungraded
from omniimage.evaluation.markup import Marked, table
from omniimage.evaluation.suites.suite import KINDS, Pictures, Result, Suite, counted, percent
from omniimage.sampling.drawing import Draws

NAME = "binding"  # as the task's grader calls it


@dataclasses.dataclass(frozen=True)
class Fault:
  """What is wrong in one cell (row, column), in words."""

  cell: tuple[int, int]
  what: str


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
  """A picture (H, W, 3) uint8, what it shows and how that answers its prompt."""

  image: np.ndarray
  graded: Graded
  score: Score
  faults: tuple[Fault, ...]

  def marked(self) -> Marked:
    """With frames round the cells that are wrong."""
    return _marked(self.image, self.graded.scene.grid, self.faults)


@dataclasses.dataclass(frozen=True, eq=False)
class Binding:
  """Answers to every prompt. `answers` has them by kind: "painted", "rendering", "true_tokens", "reconstruction"; the
  tokenizer's are left out where it reads images too small to be graded, and what the system does not have."""

  scenes: tuple[Scene, ...]
  captions: tuple[str, ...]
  images: np.ndarray  # (n, H, W, 3) uint8, what was asked for
  answers: dict[str, tuple[Answer, ...]]

  def figures(self) -> dict:
    """The shares of the painted pictures; those of the other kinds under their names."""
    by_kind = {
      kind: shares(self.scenes, [answer.score for answer in answers]) for kind, answers in self.answers.items()
    }
    by_count = Counter(len(scene.objects) for scene in self.scenes)
    prompts = {"prompts": len(self.scenes), "prompts_by_count": {str(n): by_count[n] for n in sorted(by_count)}}
    return {**by_kind.pop("painted"), **prompts, **by_kind}

  def pictures(self) -> Pictures:
    kinds = [kind for kind in reversed(KINDS) if kind in self.answers]
    columns = {KINDS[kind]: [answer.marked() for answer in self.answers[kind]] for kind in kinds}
    wrong = [i for i, answer in enumerate(self.answers["painted"]) if not answer.score.exact]
    return Pictures(self.captions, self.images, columns, wrong)


class BindingSuite(Suite):
  name: ClassVar = NAME

  def misfit(self, source: Source, learnt: str) -> str:
    return "" if graded_by(source, NAME) else ungraded(learnt)

  def run(self, generator: Draws, number: int, seed: int, batch: int, earlier: Mapping[str, Result]) -> Binding:
    return binding(generator, number, seed, batch)

  def section(self, figures: Mapping) -> str:
    counts, prompts = list(figures["by_count"]), figures.get("prompts_by_count", {})
    of_count = [f"of {count} asked" + (f" ({prompts[count]})" if count in prompts else "") for count in counts]
    header = ["", "objects bound", *of_count, "pictures right", "what was wrong"]
    rows = []
    for kind, own in _by_kind(figures).items():
      by_count = [percent(own["by_count"][count]) for count in counts]
      mistakes = ", ".join(f"{name} {count}" for name, count in own["mistakes"].items()) or "nothing"
      rows.append([KINDS[kind], percent(own["objects"]), *by_count, percent(own["scenes"]), mistakes])
    used = counted(figures["prompts"], figures, "held-out scenes")
    return (
      f"<p>{used}. Graded cell by cell: an object is bound if its shape, color, size and cell are right; a picture is "
      "right if all its objects are bound and nothing else is there. Painted pictures are the diffusion decoder’s, "
      "rendered ones the tokenizer’s own; what goes wrong with true tokens as well is not the prior’s fault.</p>"
      f"{table(header, rows)}"
    )

  def lines(self, figures: Mapping) -> list[str]:
    lines = [f"{self.name:<26}{'objects bound':>14}{'pictures right':>16}"]
    for kind, own in _by_kind(figures).items():
      lines.append(f"  {KINDS[kind]:<24}{percent(own['objects']):>14}{percent(own['scenes']):>16}")
    number, shares = figures["prompts_by_count"], figures["by_count"]
    by_count = "  ".join(f"{count}: {percent(share)} of {number[count]}" for count, share in shares.items())
    return [
      *lines,
      f"  {'painted, by objects asked':<26}{by_count}",
      f"  {counted(figures['prompts'], figures, 'held-out scenes')}",
    ]


def _by_kind(figures: Mapping) -> dict[str, Mapping]:
  return {"painted": figures, **{kind: figures[kind] for kind in KINDS if kind in figures}}


def binding(generator: Draws, prompts: int, seed: int, batch: int = 64) -> Binding:
  """Draws and grades the first `prompts` different scenes of the test split, fewer if it has fewer. UserError if the
  source has no task that is graded so."""
  task, found = conversations(generator, NAME, prompts, seed)
  grader = task.grader
  asked = tuple(grader.expected(turns) for turns in found)
  captions, images = zip(*(prompt_and_target(task, turns) for turns in found))
  images = np.stack(images)

  sampled = drawn(generator, captions, seed, batch)
  pictures = {"painted": sampled.images, "rendering": sampled.rendering}
  if generator.plans:
    codes = in_batches(lambda indices, _: generator.encode(images[indices]), np.zeros(len(asked)), batch)
    true = drawn(generator, captions, seed, batch, codes)
    pictures |= {"true_tokens": true.images, "reconstruction": true.rendering}
  there = {kind: shown for kind, shown in pictures.items() if shown is not None}
  gradable = {kind: shown for kind, shown in there.items() if shown.shape[1] >= grader.least_pixels}
  answers = {kind: answered(grader, asked, shown) for kind, shown in gradable.items()}
  return Binding(asked, captions, images, answers)


def answered(grader: Grader, asked: Sequence[Scene], images: np.ndarray) -> tuple[Answer, ...]:
  """Grades images (n, H, W, 3) against the scenes they were asked to show."""
  return tuple(
    Answer(image, seen, grader.score(scene, seen), faults(scene, seen))
    for scene, image, seen in zip(asked, images, grader.grade(images))
  )


def shares(asked: Sequence[Scene], scores: Sequence[Score]) -> dict:
  """Of pictures with these scores.

  Returns:
    objects: share of the objects asked for that are bound: shape, color, size and cell all right.
    scenes: share of the pictures that are exactly right, without an object or an unclear cell more.
    by_count: `objects`, by the number of objects asked for.
    mistakes: how often each thing was wrong, as `Score.mistakes` counts; an object may have the wrong shape and the
      wrong color.
  """
  bound = {}
  for scene, result in zip(asked, scores):
    bound.setdefault(len(scene.objects), []).extend(result.bound)
  mistakes = sum((result.mistakes for result in scores), Counter())
  return {
    "objects": float(np.mean([one for group in bound.values() for one in group])),
    "scenes": float(np.mean([result.exact for result in scores])),
    "by_count": {str(count): float(np.mean(bound[count])) for count in sorted(bound)},
    "mistakes": dict(mistakes.most_common()),
  }


def faults(asked: Scene, graded: Graded | Told) -> tuple[Fault, ...]:
  """What is wrong with a picture, cell by cell, in raster order."""
  result = score(asked, graded)
  seen = {item.cell: item for item in graded.scene.objects}
  found = []
  for item, wrong in zip(asked.objects, result.wrong):
    if not wrong:
      continue
    if wrong == ("position",):
      what = "stands in another cell"
    elif item.cell in seen:
      what = ", ".join(f"{getattr(seen[item.cell], name)} instead of {getattr(item, name)}" for name in wrong)
    else:
      what = wrong[0]
    found.append(Fault(item.cell, what))
  found += [Fault(item.cell, f"{item.size} {item.color} {item.shape} not asked for") for item in result.extra]
  asked_cells = {item.cell for item in asked.objects}
  found += [Fault(cell, "unclear") for cell in result.unclear if cell not in asked_cells]
  return tuple(sorted(found, key=lambda fault: fault.cell))


def mark(image: np.ndarray, asked: Scene, graded: Graded) -> Marked:
  """A picture of a scene with frames round the cells that are wrong."""
  return _marked(image, asked.grid, faults(asked, graded))


def said(fault: Fault) -> str:
  row, column = fault.cell
  return f"row {row + 1}, column {column + 1}: {fault.what}"


def cell_frame(cell: tuple[int, int], grid: int) -> tuple[float, float, float, float]:
  """A cell as a frame of `Marked`."""
  side, (row, column) = 100 / grid, cell
  return side * column, side * row, side, side


def _marked(image: np.ndarray, grid: int, found: Sequence[Fault]) -> Marked:
  return Marked(image, [cell_frame(fault.cell, grid) for fault in found], [said(fault) for fault in found])
