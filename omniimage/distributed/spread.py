"""Rows over devices, each of which has all of the parameters: how drawing takes more than one.

Every device runs the program of one device on its own rows (`shard_map`), and none asks another for anything. So what
becomes of a row does not depend on how many devices there are, but for how many rows each has: a program of other
shapes may add in another order.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "rows"


@dataclasses.dataclass(frozen=True)
class Spread:
  """The devices, of this process or of all. Where they are of several processes, all of these must call the same
  functions with the same arguments, and what rows become is given to each, as NumPy's arrays."""

  devices: tuple[jax.Device, ...]

  def __len__(self) -> int:
    return len(self.devices)

  @functools.cached_property
  def mesh(self) -> Mesh:
    return Mesh(np.asarray(self.devices), (AXIS,), axis_types=(AxisType.Auto,))

  @functools.cached_property
  def over_processes(self) -> bool:
    return len({device.process_index for device in self.devices}) > 1

  @functools.cached_property
  def whole(self) -> NamedSharding:
    """All of an array on each device."""
    return NamedSharding(self.mesh, P())

  def place(self, params: Any) -> Any:
    """Parameters as each device has them; those that lie so already stay."""

    def place(leaf):
      if isinstance(leaf, jax.Array) and leaf.sharding.device_set == set(self.devices):
        return leaf
      if self.over_processes:
        return jax.make_array_from_process_local_data(self.whole, np.asarray(leaf), leaf.shape)
      return jax.device_put(leaf, self.whole)

    return jax.tree.map(place, params)

  def over_rows(self, piece: Callable, jit: Callable = jax.jit, static_argnames: tuple[str, ...] = ()) -> Callable:
    """`piece(params, *rows, **more)` compiled: of parameters as `place` gives them, and trees of arrays whose first
    axis is the rows, as is that of all that it returns. What is in `static_argnames` is for all.

    Rows that do not divide over the devices are filled up with the first, and what becomes of those is dropped.
    """

    def on_each(params, rows, static):
      def own(params, rows):
        args, more = jax.tree.map(_from_numbers, rows, is_leaf=_is_numbers)
        return piece(params, *args, **more, **dict(static))

      by_rows = P(AXIS)
      return jax.shard_map(own, mesh=self.mesh, in_specs=(P(), by_rows), out_specs=by_rows, check_vma=False)(
        params, rows
      )

    run = jit(on_each, static_argnames="static")

    def call(params, *args, **more):
      static = tuple((name, more.pop(name)) for name in static_argnames if name in more)
      rows = jax.tree.map(_as_numbers, (args, more))
      count = len(jax.tree.leaves(rows)[0])
      return self._own(run(params, self._laid(rows, -count % len(self)), static=static), count)

    return call

  def _laid(self, rows: Any, spare: int) -> Any:
    """Rows on the devices, so many more than there are."""
    sharding = NamedSharding(self.mesh, P(AXIS))

    def lay(x):
      x = np.concatenate([x, np.repeat(x[:1], spare, axis=0)]) if spare else x
      return jax.make_array_from_callback(x.shape, sharding, lambda place: x[place])

    return jax.tree.map(lay, rows)

  def _own(self, result: Any, count: int) -> Any:
    """The first rows of what has come."""
    if self.over_processes:
      result = jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), self._gathered(result))
    return jax.tree.map(lambda x: x if len(x) == count else x[:count], result)

  @functools.cached_property
  def _gathered(self) -> Callable:
    return jax.jit(lambda tree: tree, out_shardings=self.whole)


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class _Numbers:
  """Random keys as the numbers that they are, which can be laid on devices of other processes."""

  data: Any

  def tree_flatten(self):
    return (self.data,), None

  @classmethod
  def tree_unflatten(cls, _, children):
    return cls(*children)


def _as_numbers(x: Any) -> Any:
  if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
    return _Numbers(np.asarray(jax.random.key_data(x)))
  return np.asarray(x)


def _is_numbers(x: Any) -> bool:
  return isinstance(x, _Numbers)


def _from_numbers(x: Any) -> Any:
  return jax.random.wrap_key_data(x.data) if _is_numbers(x) else x


def local() -> Spread:
  """The devices of this process."""
  return Spread(tuple(jax.local_devices()))


def everywhere() -> Spread:
  """Those of all processes."""
  return Spread(tuple(jax.devices()))


def host() -> jax.Device:
  """What keeps arrays in this machine's memory, or the first device where JAX may use no CPU."""
  try:
    return jax.local_devices(backend="cpu")[0]
  except RuntimeError:
    return jax.local_devices()[0]
