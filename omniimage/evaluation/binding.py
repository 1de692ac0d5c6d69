"""Attribute binding: do the pictures of held-out scenes show what was asked, object by object?

The scenes' exact grader reads four pictures of every prompt, so that an error can be blamed on a part:

    tokens          painted by the diffusion decoder    rendered by the tokenizer
    sampled         painted                             rendering
    of the truth    true_tokens                         reconstruction
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np

from omniimage import streams
from omniimage.data import scenes
from omniimage.data.distinct import distinct_scenes
from omniimage.data.scenes import Graded, Scene, Score
from omniimage.errors import UserError
from omniimage.evaluation.held_out import drawn, in_batches
from omniimage.sampling.generate import Generator
from omniimage.settings import ScenesSettings
from omniimage.streams import Stream


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


@dataclasses.dataclass(frozen=True, eq=False)
class Binding:
  """Answers to every prompt. `answers` has them by kind: "painted", "rendering", "true_tokens", "reconstruction"; the
  tokenizer's are left out where it reads images too small to be graded."""

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


def binding(generator: Generator, source_settings: ScenesSettings, prompts: int, seed: int, batch: int = 64) -> Binding:
  """Draws and grades the first `prompts` different scenes of the test split, fewer if it has fewer. UserError if the
  source is not the scenes."""
  if not isinstance(source_settings, ScenesSettings):
    raise UserError(
      f"binding grades pictures of scenes, but data.source is {source_settings.name!r}; "
      "evaluate --suite=reconstruction or --suite=seams"
    )
  records, asked = zip(*itertools.islice(distinct_scenes(source_settings), prompts))
  captions = tuple(
    scenes.caption(scene, streams.generator(Stream.CAPTIONS, seed, i)) for i, scene in zip(records, asked)
  )
  images = np.stack([scenes.render(scene, generator.omni.settings.data.image_size) for scene in asked])

  codes = in_batches(lambda indices, _: generator.encode(images[indices]), np.zeros(len(asked)), batch)
  sampled = drawn(generator, captions, seed, batch)
  true = drawn(generator, captions, seed, batch, codes)
  pictures = {
    "painted": sampled.images,
    "rendering": sampled.rendering,
    "true_tokens": true.images,
    "reconstruction": true.rendering,
  }
  smallest = scenes.MIN_CELL * source_settings.grid
  answers = {kind: answered(asked, shown) for kind, shown in pictures.items() if shown.shape[1] >= smallest}
  return Binding(asked, captions, images, answers)


def answered(asked: Sequence[Scene], images: np.ndarray) -> tuple[Answer, ...]:
  """Grades images (n, H, W, 3) against the scenes they were asked to show."""
  graded = scenes.grade_many(images, asked[0].grid)
  return tuple(
    Answer(image, seen, scenes.score(scene, seen), faults(scene, seen))
    for scene, image, seen in zip(asked, images, graded)
  )


def shares(asked: Sequence[Scene], scores: Sequence[Score]) -> dict:
  """Of pictures with these scores.

  Returns:
    objects: share of the objects asked for that are bound: shape, color, size and cell all right.
    scenes: share of the pictures that are exactly right, without an object or an unclear cell more.
    by_count: `objects`, by the number of objects asked for.
    mistakes: how often each thing was wrong; an object may have the wrong shape and the wrong color.
  """
  bound = {}
  for scene, score in zip(asked, scores):
    bound.setdefault(len(scene.objects), []).extend(score.bound)
  mistakes = Counter(name for score in scores for attributes in score.wrong for name in attributes)
  mistakes["extra"] = sum(len(score.extra) for score in scores)
  return {
    "objects": float(np.mean([one for group in bound.values() for one in group])),
    "scenes": float(np.mean([score.exact for score in scores])),
    "by_count": {str(count): float(np.mean(bound[count])) for count in sorted(bound)},
    "mistakes": {name: count for name, count in mistakes.most_common() if count},
  }


def faults(asked: Scene, graded: Graded) -> tuple[Fault, ...]:
  """What is wrong with a picture, cell by cell, in raster order."""
  result = scenes.score(asked, graded)
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
