"""Quality: how near are pictures painted from true tokens to their originals, and drawn ones as a set to true ones?

Nothing here asks whether a picture shows what was asked for, which binding does: these are the measures of pictures of
anything. What they mean depends on the pictures, so they compare runs on one data set.
"""

import dataclasses
from collections.abc import Mapping
from html import escape
from typing import ClassVar

import jax
import numpy as np

from omniimage import streams
from omniimage.data.sources.source import Source
from omniimage.errors import UserError
from omniimage.evaluation.held_out import Examples, drawn, draws_from_words, held_out, in_batches, undrawn
from omniimage.evaluation.markup import table
from omniimage.evaluation.measures.borders import patch_border_ratio
from omniimage.evaluation.measures.distributions import FEWEST, frechet_distance, kernel_distance
from omniimage.evaluation.measures.fidelity import WINDOW, decibels, mean_squared_errors, structural_similarities
from omniimage.evaluation.suites.binding import Binding
from omniimage.evaluation.suites.suite import KINDS, Pictures, Result, Suite, counted
from omniimage.interop import lpips_weights
from omniimage.models.lpips import Lpips
from omniimage.sampling.drawing import Draws
from omniimage.sampling.prompts import to_float
from omniimage.streams import Stream

# Axes: n pictures, H and W pixels, C numbers of a feature.

SEEN_PIXELS = 2**22  # that a network is shown at once: its first layers are large


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
  """What the network of LPIPS sees: features (n, C) of the drawn and of the true pictures, and how far those that are
  painted from true tokens are from these, (n,), if there are any."""

  network: str
  of_features: str
  drawn: np.ndarray
  true: np.ndarray
  distances: np.ndarray | None


@dataclasses.dataclass(frozen=True, eq=False)
class Quality:
  """Pictures (n, H, W, 3) uint8 drawn of the examples' captions and, where pictures are planned, painted from the plans
  of the true ones; the true ones as large as these. `seen` is None, and `lacks` says why, where there are no weights to
  see with."""

  examples: Examples
  true: np.ndarray
  images: np.ndarray
  true_tokens: np.ndarray | None
  patch_size: int
  seen: Seen | None
  lacks: str
  seed: int

  def figures(self) -> dict:
    true, figures = self.true, {}
    if self.true_tokens is not None:
      figures["true_tokens"] = fidelity(self.true_tokens, true)
    if self.seen is not None and self.seen.distances is not None:
      figures["true_tokens"][f"lpips_{self.seen.network}"] = float(np.mean(self.seen.distances))
    if self.seen is not None and len(true) >= FEWEST:
      figures |= self._distances()
    figures["patch_border_ratio"] = patch_border_ratio(self.images, true, self.patch_size)
    return {**figures, **({"lacks": self.lacks} if self.lacks else {}), "prompts": len(true)}

  def _distances(self) -> dict:
    name, of_seed = self.seen.of_features, streams.generator(Stream.SUBSETS, self.seed)
    kernel = kernel_distance(self.seen.drawn, self.seen.true, of_seed)
    return {
      f"frechet_{name}": frechet_distance(self.seen.drawn, self.seen.true),
      f"kid_{name}": kernel.mean,
      f"kid_{name}_std": kernel.std,
    }

  def pictures(self) -> Pictures:
    columns = {KINDS["true_tokens"]: self.true_tokens, KINDS["painted"]: self.images}
    there = {title: images for title, images in columns.items() if images is not None}
    return Pictures(self.examples.captions, self.examples.images, there)


class QualitySuite(Suite):
  behind: ClassVar = ("binding",)

  def misfit(self, source: Source, learnt: str) -> str:
    return "" if draws_from_words(source) else undrawn(learnt)

  def run(self, generator: Draws, number: int, seed: int, batch: int, earlier: Mapping[str, Result]) -> Quality:
    if "binding" in earlier:
      return quality_of(earlier["binding"], generator, seed, batch)
    return quality(generator, number, seed, batch)

  def section(self, figures: Mapping) -> str:
    rows = [[name, value] for name, value in _named(figures)]
    lacks = f"<p>Not measured: {escape(figures['lacks'])}</p>" if "lacks" in figures else ""
    return (
      f"<p>{counted(figures['prompts'], figures)}. From true tokens: pictures painted from what their originals are "
      "planned as, against these. Drawn: of captions alone, as a set against the set of true pictures; Fréchet and "
      "kernel distances are of the features that they name, averaged over places, and no FID. Borders of patches: "
      "gradient energy across them ÷ across all other steps between pixels, over the same ratio of the true pictures; "
      f"1 where no grid shows.</p>{table(['', ''], rows)}{lacks}"
    )

  def lines(self, figures: Mapping) -> list[str]:
    (name, value), *rest = _named(figures)
    lines = [f"{'quality':<26}{value:>14}   {name}", *(f"{'':<26}{value:>14}   {name}" for name, value in rest)]
    why, _, how = figures.get("lacks", "").partition(": ")
    lacks = [f"  not measured: {why}", f"    {how}"] if why else []
    return [*lines, *lacks, f"  {counted(figures['prompts'], figures)}"]


def _named(figures: Mapping) -> list[tuple[str, str]]:
  """What is measured, in words, and the figure."""
  named = []
  for key, value in figures.get("true_tokens", {}).items():
    measure, _, network = key.partition("_")
    shown = f"{value:.2f} dB" if measure == "psnr" else f"{value:.4f}"
    said = {"psnr": "PSNR", "ssim": "SSIM", "lpips": f"LPIPS ({network})"}[measure]
    named.append((f"{said}, from true tokens", shown))
  for key, value in figures.items():
    measure, _, features = key.partition("_")
    if measure == "frechet":
      named.append((f"Fréchet distance of {features}, drawn", f"{value:.4g}"))
    if measure == "kid" and not key.endswith("_std"):
      named.append((f"kernel distance of {features}, drawn", f"{value:.4g} ± {figures[f'{key}_std']:.2g}"))
  return [*named, ("borders of patches, drawn", f"{figures['patch_border_ratio']:.3f}")]


def fidelity(images: np.ndarray, references: np.ndarray) -> dict[str, float]:
  """Means over pictures (n, H, W, 3) uint8; SSIM where they are as large as its window."""
  found = {"psnr_db": float(np.mean(decibels(mean_squared_errors(images, references))))}
  if min(images.shape[1:3]) >= WINDOW:
    found["ssim"] = float(np.mean(structural_similarities(images, references)))
  return found


def quality_of(answers: Binding, generator: Draws, seed: int, batch: int = 64) -> Quality:
  """The quality of pictures that have been drawn already."""
  painted, true_tokens = (
    np.stack([answer.image for answer in answers.answers[kind]]) if kind in answers.answers else None
    for kind in ("painted", "true_tokens")
  )
  return _measured(generator, Examples(answers.captions, answers.images), painted, true_tokens, seed, batch)


def quality(generator: Draws, prompts: int, seed: int, batch: int = 64) -> Quality:
  """Draws the first `prompts` of the test split and, where they are planned, paints them from true tokens."""
  examples = held_out(generator, prompts, seed)
  painted, true_tokens = drawn(generator, examples.captions, seed, batch).images, None
  if generator.plans:
    codes = in_batches(
      lambda indices, _: generator.encode(examples.images[indices]), np.zeros(len(examples.captions)), batch
    )
    true_tokens = drawn(generator, examples.captions, seed, batch, codes).images
  return _measured(generator, examples, painted, true_tokens, seed, batch)


def _measured(
  generator: Draws, examples: Examples, images: np.ndarray, true_tokens: np.ndarray | None, seed: int, batch: int
) -> Quality:
  try:
    lpips, lacks = lpips_weights.load(generator.settings.lpips), ""
  except UserError as error:  # what needs no weights is measured
    lpips, lacks = None, str(error)
  true = reduced(examples.images, images.shape[1])
  seen = None if lpips is None else see(lpips, true, images, true_tokens, batch)
  return Quality(examples, true, images, true_tokens, generator.patch_size, seen, lacks, seed)


def reduced(images: np.ndarray, height: int) -> np.ndarray:
  """Pictures (n, H, W, 3) uint8, averaged to a height that divides theirs: some tokenizers read and render fewer pixels
  than the pictures have."""
  n, H, W, _ = images.shape
  r = H // height
  return images if r == 1 else np.round(images.reshape(n, H // r, r, W // r, r, 3).mean((2, 4))).astype(np.uint8)


def see(
  lpips: Lpips, true: np.ndarray, images: np.ndarray, true_tokens: np.ndarray | None = None, batch: int = 64
) -> Seen:
  """Pictures (n, H, W, 3) uint8, as a network sees them."""
  features, distance = jax.jit(lpips.features), jax.jit(lpips)
  batch = max(1, min(batch, SEEN_PIXELS // (true.shape[1] * true.shape[2])))

  def look(indices: np.ndarray, _) -> tuple:
    own = to_float(true[indices])
    far = () if true_tokens is None else (distance(to_float(true_tokens[indices]), own),)
    return features(to_float(images[indices])), features(own), far

  of_drawn, of_true, far = in_batches(look, np.zeros(len(true)), batch)
  return Seen(lpips.network, lpips.of_features, of_drawn, of_true, far[0] if far else None)
