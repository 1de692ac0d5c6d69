"""Fully sharded parameters gathered by hand, under `jax.shard_map`.

Each device holds a slice of every matrix (ZeRO-3, Rajbhandari et al. 2020) and some rows of the batch. A layer's
matrices are gathered just before the layer runs, in the compute type; its gradients leave as a reduce-scatter over
`fsdp` and, already sliced, an all-reduce in float32 over `data`. What the compiler makes of the same shardings by
itself is a full all-reduce of every gradient.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from omniimage.distributed.mesh import batch_axes, num_slices
from omniimage.distributed.sharding import Rules, layer_specs, param_specs

Scatter = Callable[[Array], Array]  # (n·m, …) on each of n devices → this one's m of their sum


def scatter_at_once(x: Array) -> Array:
  """The reduce-scatter of the compiler's choice."""
  return lax.psum_scatter(x, "fsdp", tiled=True)


def scatter_by_halves(x: Array) -> Array:
  """A reduce-scatter in log₂ n exchanges of halves (recursive halving, Thakur et al. 2005).

  For chips whose own reduce-scatter holds up the core: exchanges run beside the matrix products. The nearest come
  first, since they carry most. Takes n = 1, 2, 4, 8, …
  """
  me, ways = lax.axis_index("fsdp"), lax.axis_size("fsdp")
  # The whole gradient first: the compiler would rather compute it slice by slice, in thin products.
  slices = lax.optimization_barrier(x).reshape(ways, x.shape[0] // ways, *x.shape[1:])
  distance = 1
  while distance < ways:
    pairs = slices.reshape(-1, 2, *slices.shape[1:])
    own = me // distance % 2
    kept, sent = (lax.dynamic_index_in_dim(pairs, which, axis=1, keepdims=False) for which in (own, 1 - own))
    slices = kept + lax.ppermute(sent, "fsdp", [(i, i ^ distance) for i in range(ways)])
    distance *= 2
  return slices[0]


def sum_over_data(x: Array, slices: int) -> Array:
  """The sum over `data`, which spans so many TPU slices: within each, then between them.

  In one all-reduce over both, libtpu 0.0.50 takes thin arrays apart by rows that it then cannot compile.
  """
  if slices == 1:
    return lax.psum(x, "data")
  within = lax.axis_size("data") // slices
  places = np.arange(slices * within).reshape(slices, within)
  x = lax.psum(x, "data", axis_index_groups=places.tolist())
  return lax.psum(x, "data", axis_index_groups=places.T.tolist())


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def gather(shard: Array, dimension: int, dtype: Any, scatter: Scatter, slices: int) -> Array:
  """A slice along `dimension` → the whole parameter, in `dtype`. Its gradient returns summed over all devices,
  sliced."""
  # Always along the first dimension: a reduce-scatter along the last one would become an all-reduce.
  first = jnp.moveaxis(shard.astype(dtype), dimension, 0)
  return jnp.moveaxis(lax.all_gather(first, "fsdp", tiled=True), 0, dimension)


def _gather_forward(shard, dimension, dtype, scatter, slices):
  return gather(shard, dimension, dtype, scatter, slices), None


def _gather_backward(dimension, dtype, scatter, slices, _, gradient):
  scattered = scatter(jnp.moveaxis(gradient, dimension, 0))
  return (jnp.moveaxis(sum_over_data(scattered.astype(jnp.float32), slices), 0, dimension),)


gather.defvjp(_gather_forward, _gather_backward)


@dataclasses.dataclass(frozen=True)
class HandGathered:
  """The `gather_params` of a model, and `shard_map` for the functions that run it on each device's own rows."""

  mesh: Mesh
  rules: Mapping[str, Rules]  # of each part
  dtype: str
  scatter: Scatter = scatter_at_once

  def layer(self, part: str, params: dict) -> dict:
    """The parameters of one layer."""
    return self._gather(params, layer_specs(self.rules[part], part, params))

  def rest(self, part: str, params: dict) -> dict:
    """All parameters of a part but those of its layers, which stay sliced until their layer runs."""
    return self._gather(params, _without_layers(param_specs(self.rules[part], part, params)))

  def _gather(self, params: dict, specs: dict) -> dict:
    def whole(param, spec):
      sliced = [dimension for dimension, axis in enumerate(spec) if "fsdp" in _names(axis)]
      if not sliced:
        return param
      return gather(param, sliced[0], jnp.dtype(self.dtype), self.scatter, num_slices(self.mesh.devices.flat))

    return jax.tree.map(whole, params, specs)

  def gradients(self, grad_fn: Callable) -> Callable:
    """((loss, metrics), gradients) of (moving, frozen, rows, shared), from `grad_fn` of the same; `rows` is a tree of
    arrays that are cut by rows."""

    def local(moving, frozen, rows, shared):
      sums, gradients = grad_fn(moving, frozen, rows, shared)
      return lax.psum(sums, batch_axes), jax.tree.map(_summed, self._specs(moving), gradients, is_leaf=_is_spec)

    return self._over_rows(local, lambda moving: (P(), self._specs(moving)))

  def sums(self, fn: Callable) -> Callable:
    """fn(old, new, rows, shared) → sums over its rows, as sums over all rows."""
    return self._over_rows(lambda *args: lax.psum(fn(*args), batch_axes), lambda _: P())

  def _over_rows(self, local: Callable, out_specs: Callable) -> Callable:
    """`local` under `shard_map`: of two trees of parameters, what is cut by rows, and what is the same for all."""

    def sharded(first, second, rows, shared):
      return jax.shard_map(
        local,
        mesh=self.mesh,
        in_specs=(self._specs(first), self._specs(second), P(batch_axes), P()),
        out_specs=out_specs(first),
        check_vma=False,  # the gradients' sums are written out in `gather` and `_summed`
      )(first, second, rows, shared)

    return sharded

  def _specs(self, params: dict) -> dict:
    return {part: param_specs(self.rules[part], part, params[part]) for part in params}


def _summed(spec: P, gradient: Array) -> Array:
  """What is whole on every device (norms, biases) is summed here; what is sliced was summed where it was used."""
  return gradient if any("fsdp" in _names(axis) for axis in spec) else lax.psum(gradient, batch_axes)


def _without_layers(specs: dict) -> dict:
  return jax.tree.map_with_path(lambda path, spec: P() if any(k.key == "layers" for k in path) else spec, specs)


def _is_spec(x: Any) -> bool:
  return isinstance(x, P)


def _names(axis: str | tuple[str, ...] | None) -> tuple[str, ...]:
  return axis if isinstance(axis, tuple) else (axis,)
