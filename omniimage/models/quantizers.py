"""Finite scalar quantization (Mentzer et al. 2023): every channel is rounded to one of a few levels; the codebook is
their product, needs no learning and cannot collapse.

Axes: Z channels, C codes of the codebook.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


@dataclasses.dataclass(frozen=True)
class FSQ:
  levels: tuple[int, ...]

  @property
  def codes(self) -> int:
    return math.prod(self.levels)

  def quantize(self, z: Array) -> tuple[Array, Array]:
    """Unbounded (..., Z) → features (..., Z) in [-1, 1], straight-through, and codes (...) int32."""
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
    return rounded / (levels // 2), jnp.sum(digits * self._basis, axis=-1, dtype=jnp.int32)

  def features(self, codes: Array) -> Array:
    """Codes (...) → features (..., Z), the values `quantize` gave."""
    levels = np.asarray(self.levels, np.int32)
    digits = codes[..., None] // self._basis % levels
    return (digits - levels // 2).astype(jnp.float32) / (levels // 2)

  def codebook(self) -> Array:
    """Features of every code, (C, Z)."""
    return self.features(jnp.arange(self.codes, dtype=jnp.int32))

  @property
  def _basis(self) -> np.ndarray:
    return np.concatenate([[1], np.cumprod(self.levels[:-1])]).astype(np.int32)
