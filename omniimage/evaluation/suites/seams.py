"""Seams: is the canvas rougher where two chunks meet than at other borders of patches?"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from omniimage.data.sources.source import Source
from omniimage.evaluation.held_out import Examples, drawn, draws_from_words, held_out, undrawn
from omniimage.evaluation.markup import table
from omniimage.evaluation.measures.borders import FAINT
from omniimage.evaluation.sheets import to_uint8
from omniimage.evaluation.suites.binding import Binding
from omniimage.evaluation.suites.suite import KINDS, Pictures, Result, Suite, counted
from omniimage.sampling.drawing import Draws
from omniimage.settings import Settings

Chunk = tuple[int, int]  # patch rows and columns of a chunk; 0: all there are

# Axes: n images, H and W pixels.


@dataclasses.dataclass(frozen=True, eq=False)
class Seams:
  """Pictures (n, H, W, 3) uint8 of the examples, painted by chunks of so many patches; `rendering` is of the same
  tokens by the tokenizer. None if they were not drawn: a canvas of one chunk has no seams."""

  examples: Examples
  images: np.ndarray | None
  rendering: np.ndarray | None
  patch_size: int
  chunk: Chunk

  def figures(self) -> dict:
    """`ratio` is `seam_ratio`; beside it the root mean square steps across borders, in gray levels of 255."""
    chunks = chunk_count(self.examples.images.shape[1:3], self.patch_size, self.chunk)
    rows, columns = self.chunk
    figures = {"ratio": 1.0, "chunks": chunks, "chunk_rows": rows, "chunk_columns": columns}
    figures["prompts"] = len(self.examples.captions)
    if chunks == 1:
      return figures
    figures["ratio"] = seam_ratio(self.images, self.examples.images, self.patch_size, self.chunk)
    for name, images in (("painted", self.images), ("true", self.examples.images)):
      energies = border_energies(images, self.patch_size, self.chunk)
      figures[name] = dict(zip(("chunk_step", "patch_step"), (255 * float(energy**0.5) for energy in energies)))
    return figures

  def pictures(self) -> Pictures:
    drawn = {KINDS["rendering"]: self.rendering, KINDS["painted"]: self.images}
    columns = {title: images for title, images in drawn.items() if images is not None}
    return Pictures(self.examples.captions, self.examples.images, columns)


class SeamsSuite(Suite):
  needs = "chunks"
  behind: ClassVar = ("binding",)

  def misfit(self, source: Source, learnt: str) -> str:
    return "" if draws_from_words(source) else undrawn(learnt)

  def run(self, generator: Draws, number: int, seed: int, batch: int, earlier: Mapping[str, Result]) -> Seams:
    if "binding" in earlier:
      return seams_of(earlier["binding"], generator.settings)
    return seams(generator, number, seed, batch)

  def section(self, figures: Mapping) -> str:
    if figures["chunks"] == 1:
      return "<p>The canvas is painted as one chunk: there are no seams.</p>"
    rows = [
      [name, *(f"{figures[key][step]:.1f}" for step in ("chunk_step", "patch_step"))]
      for key, name in (("painted", "painted"), ("true", "true images"))
    ]
    return (
      f"<p>Ratio <b>{figures['ratio']:.3f}</b> over {counted(figures['prompts'], figures)}. Painted as "
      f"{figures['chunks']} chunks of {_of(figures)}: gradient energy across the borders of chunks "
      "÷ across the other borders of patches, over the same ratio of the true images; 1 is seamless. Root mean square "
      "steps, in gray levels of 255:</p>"
      f"{table(['', 'across chunk borders', 'across other patch borders'], rows)}"
    )

  def lines(self, figures: Mapping) -> list[str]:
    return [
      f"{'seams':<26}{figures['ratio']:>14.3f}   1 is seamless; {figures['chunks']} chunks",
      f"  {counted(figures['prompts'], figures)}",
    ]


def seams_of(drawn: Binding, settings: Settings) -> Seams:
  """The seams of pictures that have been drawn already."""
  painted = np.stack([answer.image for answer in drawn.answers["painted"]])
  examples = Examples(drawn.captions, drawn.images)
  return Seams(examples, painted, None, settings.decoder.patch_size, _chunk(settings))


def seams(generator: Draws, prompts: int, seed: int, batch: int = 64) -> Seams:
  """Draws the first `prompts` of the test split. A canvas of one chunk has no seams, and is not drawn."""
  examples, settings = held_out(generator, prompts, seed), generator.settings
  patch_size, chunk = settings.decoder.patch_size, _chunk(settings)
  if chunk_count(settings.buckets[0].pixels, patch_size, chunk) == 1:
    return Seams(examples, None, None, patch_size, chunk)
  drawing = drawn(generator, examples.captions, seed, batch)
  return Seams(examples, drawing.images, drawing.rendering, patch_size, chunk)


def _chunk(settings: Settings) -> Chunk:
  return settings.sampling.chunk_rows, settings.sampling.chunk_columns


def _of(figures: Mapping) -> str:
  rows, columns = figures["chunk_rows"], figures.get("chunk_columns", 0)
  return f"{rows}×{columns} patches" if columns else f"{rows} patch rows"


def seam_ratio(images: np.ndarray, real_images: np.ndarray, patch_size: int, chunk: Chunk) -> float:
  """Gradient energy across chunk borders ÷ across the other patch borders, over the same ratio of the real images.

  Args:
    images, real_images: (n, H, W, 3), uint8 or float in [-1, 1]; the numbers of images may differ.
    patch_size: pixels of a patch of the diffusion decoder.
    chunk: patch rows and columns painted at a time; 0 is all there are.

  Returns:
    1.0 where no seam is to be seen; more where chunks do not fit together. Exactly 1.0 for a canvas of one chunk.
  """
  if chunk_count(images.shape[1:3], patch_size, chunk) == 1:
    return 1.0
  seams, patch = border_energies(images, patch_size, chunk)
  real_seams, real_patch = border_energies(real_images, patch_size, chunk)
  return float((seams + FAINT) / (patch + FAINT) * (real_patch + FAINT) / (real_seams + FAINT))


def border_energies(images: np.ndarray, patch_size: int, chunk: Chunk) -> tuple[float, float]:
  """Mean squared steps, of pixels in [0, 1], across the borders of chunks and across all other borders of patches.

  The others are those within chunks, and of stripes all between columns, so there are some with stripes of one row.
  Of chunks of one patch there are none, and their mean is 0.
  """
  unit = to_uint8(images).astype(np.float32) / 255
  at_seams, others = [], []
  for axis, size in zip((1, 2), chunk):
    steps = np.moveaxis(np.diff(unit, axis=axis), axis, 0)[patch_size - 1 :: patch_size]  # k: from patch k to k + 1
    is_seam = np.arange(1, len(steps) + 1) % (size or len(steps) + 1) == 0
    at_seams.append(np.square(steps[is_seam]).ravel())
    others.append(np.square(steps[~is_seam]).ravel())
  return tuple(float(np.mean(all_of)) if len(all_of := np.concatenate(own)) else 0.0 for own in (at_seams, others))


def chunk_count(pixels: Sequence[int], patch_size: int, chunk: Chunk) -> int:
  """Chunks of a canvas of so many pixels down and across."""
  patches = [length // patch_size for length in pixels]
  down, across = (-(-count // (size or count)) for count, size in zip(patches, chunk))
  return down * across
