"""Seams: is the canvas rougher where two chunks meet than at other borders of patches?"""

import dataclasses
from collections.abc import Mapping
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

# Axes: n images, H and W pixels.


@dataclasses.dataclass(frozen=True, eq=False)
class Seams:
  """Pictures (n, H, W, 3) uint8 of the examples, painted `chunk_rows` patch rows at a time; `rendering` is of the same
  tokens by the tokenizer. None if they were not drawn: a canvas of one chunk has no seams."""

  examples: Examples
  images: np.ndarray | None
  rendering: np.ndarray | None
  patch_size: int
  chunk_rows: int

  def figures(self) -> dict:
    """`ratio` is `seam_ratio`; beside it the root mean square steps across borders, in gray levels of 255."""
    height = self.examples.images.shape[1]
    chunks = chunk_count(height, self.patch_size, self.chunk_rows)
    figures = {"ratio": 1.0, "chunks": chunks, "chunk_rows": self.chunk_rows, "prompts": len(self.examples.captions)}
    if chunks == 1:
      return figures
    figures["ratio"] = seam_ratio(self.images, self.examples.images, self.patch_size, self.chunk_rows)
    for name, images in (("painted", self.images), ("true", self.examples.images)):
      energies = border_energies(images, self.patch_size, self.chunk_rows)
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
      f"{figures['chunks']} chunks of {figures['chunk_rows']} patch rows: gradient energy across the borders of chunks "
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
  return Seams(examples, painted, None, settings.decoder.patch_size, settings.sampling.chunk_rows)


def seams(generator: Draws, prompts: int, seed: int, batch: int = 64) -> Seams:
  """Draws the first `prompts` of the test split. A canvas of one chunk has no seams, and is not drawn."""
  examples, settings = held_out(generator, prompts, seed), generator.settings
  patch_size, chunk_rows = settings.decoder.patch_size, settings.sampling.chunk_rows
  if chunk_count(settings.buckets[0].pixels[0], patch_size, chunk_rows) == 1:
    return Seams(examples, None, None, patch_size, chunk_rows)
  drawing = drawn(generator, examples.captions, seed, batch)
  return Seams(examples, drawing.images, drawing.rendering, patch_size, chunk_rows)


def seam_ratio(images: np.ndarray, real_images: np.ndarray, patch_size: int, chunk_rows: int) -> float:
  """Gradient energy across chunk borders ÷ across the other patch borders, over the same ratio of the real images.

  Args:
    images, real_images: (n, H, W, 3), uint8 or float in [-1, 1]; the numbers of images may differ.
    patch_size: pixels of a patch of the diffusion decoder.
    chunk_rows: patch rows painted at a time; 0 is the whole canvas.

  Returns:
    1.0 where no seam is to be seen; more where chunks do not fit together. Exactly 1.0 for a canvas of one chunk.
  """
  if chunk_count(images.shape[1], patch_size, chunk_rows) == 1:
    return 1.0
  chunk, patch = border_energies(images, patch_size, chunk_rows)
  real_chunk, real_patch = border_energies(real_images, patch_size, chunk_rows)
  return float((chunk + FAINT) / (patch + FAINT) * (real_patch + FAINT) / (real_chunk + FAINT))


def border_energies(images: np.ndarray, patch_size: int, chunk_rows: int) -> tuple[float, float]:
  """Mean squared steps, of pixels in [0, 1], across the borders of chunks and across all other borders of patches.

  The others are those between rows of one chunk and those between columns, so there are some with `chunk_rows` = 1.
  """
  unit = to_uint8(images).astype(np.float32) / 255
  down = np.square(np.diff(unit, axis=1)[:, patch_size - 1 :: patch_size])  # step k is from patch row k to k + 1
  across = np.square(np.diff(unit, axis=2)[:, :, patch_size - 1 :: patch_size])
  is_chunk = np.arange(1, down.shape[1] + 1) % chunk_rows == 0
  others = [down[:, ~is_chunk].ravel(), across.ravel()]
  return float(np.mean(down[:, is_chunk])), float(np.mean(np.concatenate(others)))


def chunk_count(height: int, patch_size: int, chunk_rows: int) -> int:
  rows = height // patch_size
  return -(-rows // (chunk_rows or rows))
