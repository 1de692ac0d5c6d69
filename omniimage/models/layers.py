"""Layers that every part is made of: norms, rotary positions, gated MLPs, stacks of layers, patches.

Axes: B batch, L positions, D width, H heads, K head width, A position axes, N patches, P pixels of a patch.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.ad_checkpoint import checkpoint_name

# Residual branches start small, so that a deep stack starts near the identity at any width.
small_init = nn.initializers.variance_scaling(1 / 16, "fan_in", "normal")


class RMSNorm(nn.Module):
  """Root-mean-square norm (Zhang & Sennrich 2019), computed in float32."""

  epsilon: float = 1e-6

  @nn.compact
  def __call__(self, x: Array) -> Array:
    scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
    return (rms_normalize(x, self.epsilon) * scale).astype(x.dtype)


def rms_normalize(x: Array, epsilon: float = 1e-6) -> Array:
  x = x.astype(jnp.float32)
  return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + epsilon)


class GatedMLP(nn.Module):
  """SwiGLU (Shazeer 2020): down(silu(gate(x)) · up(x))."""

  width: int
  hidden: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    gate = checkpoint_name(nn.Dense(self.hidden, use_bias=False, dtype=self.dtype, name="gate")(x), "gate")
    up = checkpoint_name(nn.Dense(self.hidden, use_bias=False, dtype=self.dtype, name="up")(x), "up")
    down = nn.Dense(self.width, use_bias=False, dtype=self.dtype, kernel_init=small_init, name="down")
    return down(nn.silu(gate) * up)


def rotary(positions: Array, head_width: int, theta: float) -> tuple[Array, Array]:
  """Cosines and sines of rotary positions (Su et al. 2021) over several axes.

  One ladder of frequencies θ^(−2i/K); pair i turns by the position on axis i mod A. Where all axes agree, as on text,
  this is the one-dimensional rotary to the bit.

  Args:
    positions: (..., A), integer or fractional.
    head_width: K, even.
    theta: base of the ladder.

  Returns:
    cos and sin, each (..., K/2), float32.
  """
  pairs = np.arange(head_width // 2)
  frequencies = (theta ** (-2.0 * pairs / head_width)).astype(np.float32)
  angles = jnp.asarray(positions, jnp.float32)[..., pairs % positions.shape[-1]] * frequencies
  return jnp.cos(angles), jnp.sin(angles)


def rotate(x_BLHK: Array, cos_sin: tuple[Array, Array]) -> Array:
  """Turns the pairs (i, i + K/2) of every head by the angles of `rotary`."""
  cos, sin = (part[..., None, :].astype(x_BLHK.dtype) for part in cos_sin)
  first, second = jnp.split(x_BLHK, 2, axis=-1)
  return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def grid_positions(rows: int, columns: int, scale: float = 1.0) -> Array:
  """Centres of a raster of `rows` × `columns` cells, (rows·columns, 2), in units of 1/scale cells."""
  row, column = jnp.meshgrid(*(jnp.arange(n, dtype=jnp.float32) for n in (rows, columns)), indexing="ij")
  return (jnp.stack([row.ravel(), column.ravel()], axis=-1) + 0.5) * scale - 0.5


# What the backward pass finds instead of computing it again, by name of the policy; beside it, always a layer's input.
SAVED = {
  "full": (),
  "attention": ("attention",),
  "mlp": ("attention", "residual", "gate", "up"),
  "projections": ("attention", "residual", "gate", "up", "query", "key", "value"),
}
OFFLOADED = ("residual", "query", "key", "value")  # what "offload" keeps in the host's memory, beside attention saved


def remat_policy(name: str):
  """The policy of `jax.checkpoint` that saves what `SAVED` names, or offloads what `OFFLOADED` does."""
  if name == "offload":
    return jax.checkpoint_policies.save_and_offload_only_these_names(
      names_which_can_be_saved=SAVED["attention"],
      names_which_can_be_offloaded=OFFLOADED,
      offload_src="device",
      offload_dst="pinned_host",
    )
  return jax.checkpoint_policies.save_only_these_names(*SAVED[name])


def layer_stack(
  block: type[nn.Module],
  depth: int,
  *,
  scan: bool,
  remat: str,
  gather_params: Callable | None = None,
  **fields,
):
  """The layers of a model: one scanned module with stacked parameters, or a list of `depth` modules.

  Parameters are stored stacked, under `layers`. A module built with `scan=False` takes them through `unstack_layers`.
  `gather_params`, where given, maps the parameters of one layer before they are used (hand-written FSDP enters here).
  """
  if gather_params is not None:
    block = nn.map_variables(block, "params", trans_in_fn=lambda v: {"params": gather_params(v["params"])})
  if remat != "none":
    block = nn.remat(block, prevent_cse=not scan, policy=remat_policy(remat))
  if not scan:
    return [block(**fields, name=f"layers_{i}") for i in range(depth)]
  scanned = nn.scan(block, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=nn.broadcast, length=depth)
  return scanned(**fields, name="layers")


def apply_layers(layers, x: Array, *args, caches: tuple | None = None):
  """Runs a stack of layers: (x, *args[, cache]) → (x, cache). Caches go with unstacked layers only."""
  if not isinstance(layers, (list, tuple)):
    return layers(x, *args)[0], None
  new_caches = []
  for i, layer in enumerate(layers):
    x, cache = layer(x, *args) if caches is None else layer(x, *args, caches[i])
    new_caches.append(cache)
  return x, None if caches is None else tuple(new_caches)


def unstack_layers(params: dict) -> dict:
  """Parameters of a scanned model as those of the same model unrolled: `layers` → `layers_0`, `layers_1`, …"""
  unstacked = {}
  for name, value in params.items():
    if name == "layers":
      depth = jax.tree.leaves(value)[0].shape[0]
      unstacked |= {f"layers_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], value) for i in range(depth)}
    else:
      unstacked[name] = unstack_layers(value) if isinstance(value, dict) else value
  return unstacked


def stack_layers(params: dict) -> dict:
  """The inverse of `unstack_layers`."""
  stacked, layers = {}, {}
  for name, value in params.items():
    if name.startswith("layers_"):
      layers[int(name.removeprefix("layers_"))] = value
    else:
      stacked[name] = stack_layers(value) if isinstance(value, dict) else value
  if layers:
    stacked["layers"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(layers[i] for i in sorted(layers)))
  return stacked


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
