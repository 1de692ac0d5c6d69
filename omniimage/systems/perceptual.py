"""What pictures look like as a part of the loss: LPIPS beside the errors of pixels and of painting.

A tokenizer's rendering is compared as it is. What a painter predicts is compared where it knows enough to be asked: at
high noise the best prediction is the mean of all pictures that could be meant, which is blurred and should be, and a
loss that wants it sharp would want one of them, at the cost of the others. PixelGen (Ma et al. 2026, arXiv 2602.02493)
leaves the first 0.3 of the way out, and so do we. The distance is not weighted by time, as the flow's error is by
1/(1 − t)²: x̂ is compared, not a velocity.

Axes: F images, N patches of the canvas, P numbers of a patch.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from omniimage.models.lpips import Lpips, flops
from omniimage.settings import Settings, StageSettings, require
from omniimage.size import Size
from omniimage.systems.omni_flops import FORWARD, THROUGH

BESIDE = {"pixel_lpips": "pixel", "diffusion_lpips": "diffusion"}  # terms, and which each of them goes with
LATE = 0.3  # t from which a prediction is compared


def compares(stage: StageSettings) -> bool:
  return any(map(stage.weight, BESIDE))


def check(stage: StageSettings, place: str):
  """SettingsError where there is nothing that a perceptual term could stand beside."""
  for term, base in BESIDE.items():
    require(
      not stage.weight(term) or stage.weight(base) > 0,
      f"{place}: weights.{term}={stage.weight(term)} goes with weights.{base}, for LPIPS alone leaves colors open: "
      f"give weights.{base} a weight too",
    )


def distances(lpips: Lpips, images: Array, others: Array) -> Array:
  """(...) of images and others (..., H, W, 3)."""
  lead = images.shape[:-3]
  return lpips(*(x.reshape(-1, *x.shape[-3:]) for x in (images, others))).reshape(lead)


def late_distances(
  lpips: Lpips, predicted_FNP: Array, clean_FNP: Array, t: Array, unpatchify: Callable[[Array], Array]
) -> Array:
  """(F,) of what is predicted. Patches that are still too early are those of the clean image, and count as alike.

  Args:
    t: of each patch, as wide as the patches or to be repeated.
    unpatchify: patches (F, N, P) → images (F, H, W, 3).
  """
  shown_FNP = jnp.where(t >= LATE, predicted_FNP, clean_FNP)
  return lpips(unpatchify(shown_FNP), unpatchify(clean_FNP))


def perceptual_flops(lpips: Lpips, settings: Settings, stage: StageSettings, size: Size) -> int:
  """Of an update: the true image seen, and the other one with the gradient of what came in."""
  side, sizes = settings.tokenizer.patch_size, {}
  sizes["pixel_lpips"], sizes["diffusion_lpips"] = (size.rows * side, size.columns * side), size.pixels
  images = stage.rows * settings.data.images_per_row
  return sum(
    images * (FORWARD + THROUGH) * flops(lpips.network, *pixels) for term, pixels in sizes.items() if stage.weight(term)
  )
