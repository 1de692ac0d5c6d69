"""What every part is made of: norms, rotary positions, gated MLPs, patches.

Axes: B batch, L positions, D width, H heads, K head width, A position axes, N patches, P pixels of a patch.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from omniimage.models.remat import tag

# Residual branches start small, so that a deep stack starts near the identity at any width.
small_init = nn.initializers.variance_scaling(1 / 16, "fan_in", "normal")


DotGeneral = Callable[..., Array]  # of activations and a matrix, as `jax.lax.dot_general`


class RMSNorm(nn.Module):
  """Root-mean-square norm (Zhang & Sennrich 2019), computed in float32. It scales by its parameter and `offset`, which
  together begin as 1."""

  epsilon: float = 1e-6
  offset: float = 0.0

  @nn.compact
  def __call__(self, x: Array) -> Array:
    scale = self.param("scale", nn.initializers.constant(1 - self.offset), (x.shape[-1],), jnp.float32)
    return (rms_normalize(x, self.epsilon) * (scale + self.offset if self.offset else scale)).astype(x.dtype)


def rms_normalize(x: Array, epsilon: float = 1e-6) -> Array:
  x = x.astype(jnp.float32)
  return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + epsilon)


class GatedMLP(nn.Module):
  """SwiGLU (Shazeer 2020): down(silu(gate(x)) · up(x)), or GeGLU by another activation."""

  width: int
  hidden: int
  dtype: Any = jnp.float32
  dot_general: DotGeneral = jax.lax.dot_general
  activation: Callable[[Array], Array] = nn.silu

  @nn.compact
  def __call__(self, x: Array) -> Array:
    dense = functools.partial(nn.Dense, use_bias=False, dtype=self.dtype, dot_general=self.dot_general)
    gate = tag(dense(self.hidden, name="gate")(x), "gate")
    up = tag(dense(self.hidden, name="up")(x), "up")
    down = dense(self.width, kernel_init=small_init, name="down")
    return down(self.activation(gate) * up)


def rotary(positions: Array, head_width: int, theta: float, scaling: Sequence[float] = ()) -> tuple[Array, Array]:
  """Cosines and sines of rotary positions (Su et al. 2021) over several axes.

  One ladder of frequencies θ^(−2i/K); pair i turns by the position on axis i mod A. Where all axes agree, as on text,
  this is the one-dimensional rotary to the bit.

  Args:
    positions: (..., A), integer or fractional.
    head_width: K, even.
    theta: base of the ladder.
    scaling: of `scaled_frequencies`; () leaves the ladder as it is.

  Returns:
    cos and sin, each (..., K/2), float32.
  """
  pairs = np.arange(head_width // 2)
  frequencies = theta ** (-2.0 * pairs / head_width)
  frequencies = (scaled_frequencies(frequencies, *scaling) if scaling else frequencies).astype(np.float32)
  angles = jnp.asarray(positions, jnp.float32)[..., pairs % positions.shape[-1]] * frequencies
  return jnp.cos(angles), jnp.sin(angles)


def scaled_frequencies(frequencies: np.ndarray, factor: float, low: float, high: float, trained: float) -> np.ndarray:
  """Llama 3's frequencies for sequences `factor` times as long as the `trained` positions (Grattafiori et al. 2024).

  A pair that turns more than `high` times over these stays, one that turns less than `low` times is slowed down by the
  factor, and between the two it goes from one to the other.
  """
  turns = trained * frequencies / (2 * np.pi)
  kept = np.clip((turns - low) / (high - low), 0, 1)
  return frequencies * (kept + (1 - kept) / factor)


def rotate(x_BLHK: Array, cos_sin: tuple[Array, Array]) -> Array:
  """Turns the pairs (i, i + K/2) of every head by the angles of `rotary`."""
  cos, sin = (part[..., None, :].astype(x_BLHK.dtype) for part in cos_sin)
  first, second = jnp.split(x_BLHK, 2, axis=-1)
  return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def grid_positions(rows: int, columns: int, scale: float = 1.0) -> Array:
  """Centres of a raster of `rows` × `columns` cells, (rows·columns, 2), in units of 1/scale cells."""
  row, column = jnp.meshgrid(*(jnp.arange(n, dtype=jnp.float32) for n in (rows, columns)), indexing="ij")
  return (jnp.stack([row.ravel(), column.ravel()], axis=-1) + 0.5) * scale - 0.5


def patchify(images: Array, patch_size: int) -> Array:
  """(..., H, W, 3) → (..., N, P), raster order."""
  *lead, height, width, channels = images.shape
  rows, columns = height // patch_size, width // patch_size
  x = images.reshape(*lead, rows, patch_size, columns, patch_size, channels)
  x = jnp.swapaxes(x, -4, -3)
  return x.reshape(*lead, rows * columns, patch_size * patch_size * channels)


def unpatchify(patches: Array, patch_size: int, columns: int) -> Array:
  """(..., N, P) → (..., H, W, 3); the inverse of `patchify`."""
  *lead, count, _ = patches.shape
  rows = count // columns
  x = patches.reshape(*lead, rows, columns, patch_size, patch_size, -1)
  x = jnp.swapaxes(x, -4, -3)
  return x.reshape(*lead, rows * patch_size, columns * patch_size, x.shape[-1])
