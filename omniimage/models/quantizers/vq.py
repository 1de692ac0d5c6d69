"""Vector quantization (VQ-VAE, van den Oord et al. 2017): the nearest code of a codebook that is learnt.

As LlamaGen has it (Sun et al. 2024, arXiv 2406.06525): few channels, and codes and codebook of unit length (ViT-VQGAN,
Yu et al. 2022), so that the nearest is the one at the smallest angle and no code is far from all there is.

Axes: Z channels, C codes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from omniimage.models.quantizers.interface import EXACT, Quantized


class VQ(nn.Module):
  codes: int
  channels: int
  beta: float  # weight of the commitment

  def setup(self):
    self.codebook = self.param("codebook", of_unit_length, (self.codes, self.channels))

  def __call__(self, z: Array) -> Quantized:
    """Unbounded (..., Z) → features (..., Z) of unit length, straight-through, codes (...), and the loss of codebook
    and commitment (...), ‖sg z − e‖² + β ‖z − sg e‖² over the channels."""
    z = unit(z.astype(jnp.float32))
    cosine = jnp.matmul(z, unit(self.codebook).T, precision=EXACT)
    codes = jnp.argmax(cosine, axis=-1).astype(jnp.int32)
    chosen, fixed = self.features(codes), jax.lax.stop_gradient
    codebook, commitment = (jnp.mean(jnp.square(x), axis=-1) for x in (chosen - fixed(z), z - fixed(chosen)))
    # The codebook learns from its own loss alone. What is added to the code is zero: features are the code's, to the
    # bit.
    features = fixed(chosen) + (z - fixed(z))
    return Quantized(features, codes, codebook + self.beta * commitment, 2 * cosine - 2)

  def features(self, codes: Array) -> Array:
    """Codes (...) → features (..., Z), the values that the call gave."""
    return unit(jnp.take(self.codebook, codes, axis=0))


def unit(x: Array) -> Array:
  """Divided by its length over the last axis."""
  return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)


def of_unit_length(key: Array, shape: tuple[int, int]) -> Array:
  """Points drawn evenly from the sphere."""
  return unit(jax.random.normal(key, shape))
