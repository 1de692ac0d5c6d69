"""Reconstruction: held-out images through the image tokenizer and back, and how it uses its codebook."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from omniimage.evaluation.held_out import Examples, held_out, in_batches, pictured
from omniimage.evaluation.markup import table
from omniimage.evaluation.measures.fidelity import decibels, mean_squared_errors
from omniimage.evaluation.sheets import to_uint8
from omniimage.evaluation.suites.suite import KINDS, Pictures, Result, Suite, counted, percent
from omniimage.sampling.generate import Generator
from omniimage.sampling.prompts import to_float

# Axes: n images, H and W pixels as the tokenizer reads them, h × w codes.


@dataclasses.dataclass(frozen=True, eq=False)
class Reconstruction:
  """Images and what the tokenizer made of them, (n, H, W, 3) uint8, and their codes (n, h, w)."""

  examples: Examples
  images: np.ndarray
  reconstructions: np.ndarray
  codes: np.ndarray
  codebook_size: int

  def figures(self) -> dict:
    mse = mean_squared_errors(self.images, self.reconstructions)
    return {
      "psnr_db": float(np.mean(decibels(mse))),  # mean over the images, as most papers have it
      "psnr_of_mean_db": float(decibels(np.mean(mse))),  # of the mean squared error: the worst images count most
      **codebook_use(self.codes, self.codebook_size),
      "images": len(self.images),
    }

  def pictures(self) -> Pictures:
    columns = {KINDS["reconstruction"]: self.reconstructions}
    return Pictures(self.examples.captions, self.examples.images, columns)


class ReconstructionSuite(Suite):
  needs = "codes"
  samples = False
  behind: ClassVar = ("binding",)

  def run(
    self, generator: Generator, number: int, seed: int, batch: int, earlier: Mapping[str, Result]
  ) -> Reconstruction:
    return reconstruction(generator, number, seed, batch)

  def section(self, figures: Mapping) -> str:
    header = ["", "PSNR, mean of images", "PSNR of the mean error", "codes used", "dead", "perplexity of the codes"]
    row = [
      "tokenizer",
      f"{figures['psnr_db']:.2f} dB",
      f"{figures['psnr_of_mean_db']:.2f} dB",
      percent(figures["codebook_used"]),
      f"{figures['dead_codes']:,}" if "dead_codes" in figures else "–",  # reports of before have none
      f"{figures['perplexity']:,.0f}",
    ]
    used = counted(figures["images"], figures, "held-out images")
    return f"<p>{used}. Each went through the tokenizer.</p>{table(header, [row])}"

  def lines(self, figures: Mapping) -> list[str]:
    used = f"{percent(figures['codebook_used'])} of the codes used, perplexity {figures['perplexity']:,.0f}"
    return [
      f"{'reconstruction':<26}{figures['psnr_db']:>11.2f} dB   {used}",
      f"  {counted(figures['images'], figures, 'held-out images')}",
    ]


def reconstruction(generator: Generator, images: int, seed: int, batch: int = 64) -> Reconstruction:
  """The first `images` of the test split (fewer if it has fewer) through the tokenizer."""
  examples, omni = held_out(generator, images, seed, pictured), generator.omni

  def through(indices: np.ndarray, _) -> tuple:
    own = examples.images[indices]
    read = omni.shrink(to_float(own))
    return to_uint8(read), to_uint8(generator.reconstruct(own)), generator.encode(own)

  pieces = in_batches(through, np.zeros(len(examples.images)), batch)
  return Reconstruction(examples, *pieces, omni.settings.tokenizer.codes)


def codebook_use(codes: np.ndarray, codebook_size: int) -> dict[str, float]:
  """`codebook_used`: share of the codes that occur at all. `dead_codes`: how many do not. `perplexity`: as many codes,
  used evenly, have the entropy of the histogram; at most `codebook_size`."""
  histogram = np.bincount(codes.ravel(), minlength=codebook_size)
  shares = histogram[histogram > 0] / histogram.sum()
  return {
    "codebook_used": float(np.mean(histogram > 0)),
    "dead_codes": int(np.sum(histogram == 0)),
    "perplexity": float(np.exp(-np.sum(shares * np.log(shares)))),
  }
