"""Finite scalar quantization (Mentzer et al. 2023): every channel is rounded to one of a few levels; the codebook is
their product, needs no learning and cannot collapse.

Axes: Z channels.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from omniimage.models.quantizers.interface import Quantized


class FSQ(nn.Module):
  levels: tuple[int, ...]

  @property
  def codes(self) -> int:
    return math.prod(self.levels)

  @property
  def channels(self) -> int:
    return len(self.levels)

  def __call__(self, z: Array) -> Quantized:
    """Unbounded (..., Z) → features (..., Z) in [-1, 1], straight-through, and codes (...); no auxiliary loss."""
    z = z.astype(jnp.float32)
    levels = np.asarray(self.levels)
    # The tanh spans the levels with a small margin, so that the outermost ones are reached; even numbers of levels are
    # shifted by one half.
    half = (levels - 1) * (1 + 1e-3) / 2
    offset = np.where(levels % 2 == 0, 0.5, 0.0)
    shift, half, offset = (np.float32(x) for x in (np.arctanh(offset / half), half, offset))
    bounded = jnp.tanh(z + shift) * half - offset
    rounded = bounded + jax.lax.stop_gradient(jnp.round(bounded) - bounded)
    digits = jnp.round(bounded).astype(jnp.int32) + np.int32(levels // 2)
    return Quantized(rounded / (levels // 2), jnp.sum(digits * self._basis, axis=-1, dtype=jnp.int32), None)

  def features(self, codes: Array) -> Array:
    """Codes (...) → features (..., Z), the values that the call gave."""
    levels = np.asarray(self.levels, np.int32)
    digits = codes[..., None] // self._basis % levels
    return (digits - levels // 2).astype(jnp.float32) / (levels // 2)

  @property
  def _basis(self) -> np.ndarray:
    return np.concatenate([[1], np.cumprod(self.levels[:-1])]).astype(np.int32)
