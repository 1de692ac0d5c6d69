"""Index backpropagation quantization (IBQ, Shi et al. 2024, arXiv 2412.02692): a learnt codebook all of whose codes
move with every update.

VQ's gradient reaches the codes that were chosen, so that the others are left behind. Here the choice itself is
straight-through, a one-hot vector over all codes whose gradient is that of a softmax.

Axes: Z channels, C codes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from omniimage.models.quantizers.interface import EXACT, Quantized
from omniimage.models.quantizers.vq import of_unit_length


class IBQ(nn.Module):
  codes: int
  channels: int
  beta: float  # weight of the codes' own half of the loss

  def setup(self):
    self.codebook = self.param("codebook", of_one_length, (self.codes, self.channels))

  def __call__(self, z: Array) -> Quantized:
    """Unbounded (..., Z) → features (..., Z), whose gradient reaches the encoder and every code, codes (...), and the
    double quantization loss (...), ‖ẽ − z‖² + ‖sg e − z‖² + β ‖e − sg z‖² over the channels; ẽ are the features, e the
    same numbers looked up."""
    z, fixed = z.astype(jnp.float32), jax.lax.stop_gradient
    logits = jnp.matmul(z, self.codebook.T, precision=EXACT)
    codes = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    chosen, soft = self.features(codes), jax.nn.softmax(logits)
    # (hard + soft − sg soft) @ codebook, with hard @ codebook looked up: features are the code's, to the bit.
    features = chosen + jnp.matmul(soft - fixed(soft), self.codebook, precision=EXACT)
    halves = features - z, fixed(chosen) - z, chosen - fixed(z)
    double, commitment, codebook = (jnp.mean(jnp.square(x), axis=-1) for x in halves)
    return Quantized(features, codes, double + commitment + self.beta * codebook, logits)

  def features(self, codes: Array) -> Array:
    """Codes (...) → features (..., Z), the values that the call gave."""
    return jnp.take(self.codebook, codes, axis=0)


def of_one_length(key: Array, shape: tuple[int, int]) -> Array:
  """Points of the sphere whose elements have a variance of one. In the paper's 256 channels a normal draw is about that
  by itself; in few, some are long and hide the short ones, which no z would ever choose."""
  return shape[1] ** 0.5 * of_unit_length(key, shape)
