"""Where a code stands in its image, added to its embedding.

Rotary positions decide which places attention looks at, and say nothing of a place that was found by its content: the
values are the same wherever it stands. A model that is to tell where something is needs its place among them.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from omniimage.models.layers import rotary

PAIRS = 32  # a cosine and a sine each, half of them of the row and half of the column
THETA = 100.0  # base of their ladder: neighbours are told apart by its beginning, ends of a large image by its end


class GridEmbedding(nn.Module):
  """Fourier features of row and column (Tancik et al. 2020), on the ladder of the rotary positions, and a matrix.

  Attributes:
    width: D.
    scale: about √2 times the standard deviation of what comes out at first.
  """

  width: int
  scale: float
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, positions: Array) -> Array:
    """Positions (..., 3) of (time, row, column) → (..., D). Codes of an image have one time; rows and columns count
    from it."""
    cos_sin = rotary(positions[..., 1:] - positions[..., :1], 2 * PAIRS, THETA)
    init = nn.initializers.variance_scaling(self.scale**2, "fan_in", "normal")
    features = jnp.concatenate(cos_sin, axis=-1).astype(self.dtype)
    return nn.Dense(self.width, use_bias=False, dtype=self.dtype, kernel_init=init, name="out")(features)
