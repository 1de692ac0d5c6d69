"""Muon (Jordan et al. 2024): momentum whose singular values are all made about one; on a mesh, dealt out.

A mesh has matrices in slices, and the iteration wants them whole. So the matrices of a shape, of all layers and kinds,
are stacked; slices are exchanged for whole matrices, all-to-all; each device orthogonalizes its own, and what comes of
it is exchanged back. Liu et al. (2025) share the work among what slices the weights; here what holds copies shares too.

Axes: M matrices of one shape, m × n each, m ≤ n; on a device M, m and n are what it has of them.
"""

import dataclasses
import functools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.sharding import PartitionSpec as P
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from omniimage.distributed.sharding import Rules, param_specs

ITERATIONS, COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)


class Laid(NamedTuple):
  """How the matrices of a part lie on the mesh that is set, and the type in which they are exchanged and iterated."""

  rules: Rules
  part: str
  dtype: Any


def scale_by_muon_on_mesh(numbers, laid: Laid | None) -> optax.GradientTransformation:
  """Optax's Muon, its state and its momentum, whose matrices are dealt out over the mesh that is set.

  Args:
    numbers: of updates, a tree of `MuonDimensionNumbers`; what is neither summed over nor comes out counts matrices.
    laid: None: everything is here.
  """

  def orthogonalize(updates, _):
    return orthogonalized(updates, numbers(updates), laid)

  momentum = scale_by_muon(COEFFICIENTS, ns_steps=0, weight_dimension_numbers=numbers)  # each matrix of norm one
  return optax.chain(momentum, optax.stateless(orthogonalize))


def orthogonalized(updates: Any, numbers: Any, laid: Laid | None) -> Any:
  """A tree of matrices of norm one → each about the orthogonal factor of its polar decomposition."""
  leaves, tree = jax.tree.flatten(updates)
  numbers, sizes = tree.flatten_up_to(numbers), jax.sharding.get_abstract_mesh().shape
  sizes = {axis: size for axis, size in sizes.items() if size > 1}
  if laid is None or not sizes:
    stacks = [Stack.of(leaf.shape, own, P()) for leaf, own in zip(leaves, numbers, strict=True)]
    dtype = jnp.float32 if laid is None else laid.dtype
    return tree.unflatten(_by_shape(leaves, stacks, lambda x_Mmn, _: newton_schulz(x_Mmn), dtype))
  specs = tree.flatten_up_to(param_specs(laid.rules, laid.part, updates))
  stacks = [Stack.of(leaf.shape, own, spec) for leaf, own, spec in zip(leaves, numbers, specs, strict=True)]
  deal_out = functools.partial(_dealt_out, sizes)
  local = jax.shard_map(
    lambda *leaves: _by_shape(leaves, stacks, deal_out, laid.dtype),
    in_specs=tuple(specs),
    out_specs=tuple(specs),
    check_vma=False,  # copies are the same again once they are gathered
  )
  return tree.unflatten(local(*leaves))


def newton_schulz(x_Mmn: Array) -> Array:
  """Five quintic iterations, which leave singular values between about .7 and 1.2."""
  a, b, c = COEFFICIENTS
  for _ in range(ITERATIONS):
    square_Mmm = x_Mmn @ jnp.swapaxes(x_Mmn, 1, 2)
    x_Mmn = a * x_Mmn + (b * square_Mmm + c * square_Mmm @ square_Mmm) @ x_Mmn
  return x_Mmn


@dataclasses.dataclass(frozen=True)
class Stack:
  """How an array is a stack of matrices.

  Attributes:
    order: its axes, first those that count matrices, then those of m, then those of n.
    sides: its axes that make m, and n.
    shape: m and n, whole.
    sliced: the mesh axis over which m is sliced, and n; None: it is whole.
  """

  order: tuple[int, ...]
  sides: tuple[tuple[int, ...], tuple[int, ...]]
  shape: tuple[int, int]
  sliced: tuple[str | None, str | None]

  @classmethod
  def of(cls, shape: tuple[int, ...], numbers: MuonDimensionNumbers, spec: P) -> "Stack":
    """ValueError where a side of the matrices is not sliced in one piece a device: exchanged they would be mixed up."""

    def size(axes):
      return math.prod(shape[axis] for axis in axes)

    sides = tuple(sorted((numbers.reduction_axis, numbers.output_axis), key=size))
    counted = tuple(axis for axis in range(len(shape)) if axis not in (*sides[0], *sides[1]))
    names = (*spec, *(None,) * (len(shape) - len(spec)))
    sliced = tuple(names[side[0]] for side in sides)
    others = [names[axis] for axis in (*counted, *sides[0][1:], *sides[1][1:])]
    if any(others) or not all(axis is None or isinstance(axis, str) for axis in sliced):
      raise ValueError(f"an array {shape} of matrices lies as {spec}; Muon takes one mesh axis a side, over its first")
    return cls((*counted, *sides[0], *sides[1]), sides, tuple(map(size, sides)), sliced)

  def matrices(self, leaf: Array) -> Array:
    m, n = (math.prod(leaf.shape[axis] for axis in side) for side in self.sides)
    return jnp.transpose(leaf, self.order).reshape(-1, m, n)

  def leaf(self, x_Mmn: Array, shape: tuple[int, ...]) -> Array:
    ordered = x_Mmn.reshape([shape[axis] for axis in self.order])
    return jnp.transpose(ordered, [self.order.index(axis) for axis in range(len(shape))])


def _by_shape(leaves: Sequence[Array], stacks: Sequence[Stack], orthogonalize, dtype: Any) -> tuple[Array, ...]:
  """Each array of matrices, orthogonalized with all others that have matrices of its shape and lie like it."""
  groups, done = defaultdict(list), list(leaves)
  for place, stack in enumerate(stacks):
    groups[stack.shape, stack.sliced].append(place)
  for places in groups.values():
    parts = [stacks[place].matrices(leaves[place].astype(dtype)) for place in places]
    ends = np.cumsum([len(part) for part in parts])[:-1]
    x_Mmn = orthogonalize(jnp.concatenate(parts), stacks[places[0]].sliced)
    for place, own in zip(places, jnp.split(x_Mmn, ends)):
      done[place] = stacks[place].leaf(own, leaves[place].shape).astype(leaves[place].dtype)
  return tuple(done)


def _dealt_out(sizes: Mapping[str, int], x_Mmn: Array, sliced: tuple[str | None, str | None]) -> Array:
  """Under `shard_map`: this device's slices of matrices → the same slices, orthogonalized."""
  slicing = [(axis, 1 + side) for side, axis in enumerate(sliced) if axis in sizes]
  count, ways = len(x_Mmn), math.prod(sizes[axis] for axis, _ in slicing)
  # Without a barrier XLA's CPU backend takes the stack apart again, in layouts that it then cannot exchange.
  x_Mmn = lax.optimization_barrier(_padded(x_Mmn, ways))
  for axis, side in slicing:
    x_Mmn = lax.all_to_all(x_Mmn, axis, split_axis=0, concat_axis=side, tiled=True)
  orthogonalize = newton_schulz
  for axis in sizes:
    if axis not in sliced:
      orthogonalize = functools.partial(_shared, orthogonalize, axis, sizes[axis])
  x_Mmn = orthogonalize(x_Mmn)
  for axis, side in reversed(slicing):
    x_Mmn = lax.all_to_all(x_Mmn, axis, split_axis=side, concat_axis=0, tiled=True)
  return x_Mmn[:count]


def _shared(orthogonalize, axis: str, size: int, x_Mmn: Array) -> Array:
  """The matrices that all devices along an axis have, each orthogonalized by one of every so many of them.

  Not more of them share than there are matrices, so that no blank ones are sent around.
  """
  count = len(x_Mmn)
  if count == 1:
    return orthogonalize(x_Mmn)
  sharing = next(ways for ways in range(1, size + 1) if size % ways == 0 and ways >= min(count, size))
  own = -(-count // sharing)
  first = lax.axis_index(axis) % sharing * own
  x_Mmn = orthogonalize(lax.dynamic_slice_in_dim(_padded(x_Mmn, sharing), first, own))
  groups = [list(range(start, start + sharing)) for start in range(0, size, sharing)]
  return lax.all_gather(x_Mmn, axis, axis_index_groups=groups, tiled=True)[:count]


def _padded(x_Mmn: Array, ways: int) -> Array:
  """With blank matrices behind, to a multiple of `ways`."""
  return jnp.pad(x_Mmn, ((0, -len(x_Mmn) % ways), (0, 0), (0, 0)))
