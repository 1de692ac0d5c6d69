"""Input images as the prior reads them where codes are not all: by continuous features, what the image tokenizer's
encoder knows of each place before it is quantized.

Axes: B rows, L positions, N visual tokens, E width of the tokenizer, D width of the prior.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from omniimage.models.layers import RMSNorm

# What is read at a place of an input image, of its code's embedding and its feature, by `prior.input_images`. Under
# "codes" there is no adapter.
READ = {"features": lambda embedded, feature: feature, "both": jnp.add}


class InputFeatures(NamedTuple):
  """Features of input images in rows of tokens.

  Attributes:
    values: (B, L, D), of the adapter.
    there: (B, L) bool, where they stand: at the places of the images' codes.
  """

  values: Array
  there: Array


class Adapter(nn.Module):
  """Norm and an MLP of two layers, as between vision encoder and language model in LLaVA-1.5 (Liu et al. 2023).

  Attributes:
    width: D.
    scale: about the standard deviation of what comes out at first: that of embeddings, so that layers read both alike.
  """

  width: int
  scale: float
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, states: Array) -> Array:
    """(..., E) → (..., D)."""
    out_init = nn.initializers.variance_scaling(self.scale**2, "fan_in", "normal")
    hidden = nn.gelu(nn.Dense(self.width, dtype=self.dtype, name="hidden")(RMSNorm(name="norm")(states)))
    return nn.Dense(self.width, dtype=self.dtype, kernel_init=out_init, name="out")(hidden)
