"""What of a picture stays while the rest is drawn again: variations, inpainting.

The prior writes all codes in raster order, and where one is kept it is written instead of being drawn: what is drawn
sees the kept codes before it. The painter starts every patch from noise, and what it predicts for a kept one is
replaced by the patch itself, so that it ends there exactly and what is painted fits to it (after RePaint, Lugmayr et
al. 2022).
"""

import flax
import jax.numpy as jnp
import numpy as np
from jax import Array

from omniimage.models.layers import patchify
from omniimage.models.omni import Omni


@flax.struct.dataclass
class Kept:
  """Of B pictures of h × w visual tokens and N patches of the painter, of P numbers each.

  Attributes:
    codes: (B, h·w) int32, their codes, −1 where one is drawn again.
    patches: (B, N, P) in [-1, 1].
    stays: (B, N) bool, of the patches.
  """

  codes: Array
  patches: Array
  stays: Array


def kept(omni: Omni, images: Array, codes: Array, again: np.ndarray) -> Kept:
  """Of images (B, H, W, 3) in [-1, 1] with their codes (B, h, w), all but the pixels `again` (B, H, W) bool. A code, or
  a patch, is drawn again if any of its pixels is."""
  decoder = omni.settings.decoder
  B, h, w = codes.shape
  of_code = again.reshape(B, h, again.shape[1] // h, w, again.shape[2] // w).any(axis=(2, 4))
  of_patch = patchify(again[..., None], decoder.patch_size).any(axis=-1)
  return Kept(
    jnp.where(of_code, -1, codes).reshape(B, h * w).astype(jnp.int32),
    patchify(jnp.asarray(images, jnp.float32), decoder.patch_size),
    jnp.asarray(~of_patch),
  )
