"""No quantizer: continuous latents, which have a mean of zero and a variance of one over the channels of each place.

Latent diffusion (Rombach et al. 2022, arXiv 2112.10752) divides the latents by their standard deviation over a batch,
so that noise of unit variance is neither lost in them nor drowns them. Here the encoder's output is standardized at
each place, so that it holds at any time and for any images, and there is no number to be measured and kept.

Axes: Z channels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from omniimage.models.quantizers.interface import Quantized


class Latents(nn.Module):
  channels: int

  def __call__(self, z: Array) -> Quantized:
    """Unbounded (..., Z) → latents (..., Z); no codes, no auxiliary loss."""
    z = z.astype(jnp.float32)
    centered = z - jnp.mean(z, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centered), axis=-1, keepdims=True)
    return Quantized(centered * jax.lax.rsqrt(variance + 1e-6), None, None)
