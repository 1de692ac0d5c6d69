"""How a CPU draws fastest: the order of the prior's matrices, and of what is computed. Accelerators choose their own.

A step of sampling reads every matrix for a handful of rows. Where the weights of one output lie together, the products
of XLA's CPU backend with bfloat16 weights, or with more than a few rows, take about half the time; where float32 meets
few rows, the order of training is the faster one. Such products are too small for two cores each, so that those that
do not need each other are better computed at once (benchmarks/sampling.py).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from omniimage.distributed.spread import Spread
from omniimage.models.omni import Params

FEW = 4  # rows up to which float32 is faster as trained
TWO_INPUT_AXES = "out"  # the matrix that joins the heads, (H, K, D); the others have one, their first
CPU_OPTIONS = {"xla_cpu_enable_concurrency_optimized_scheduler": True}


def compiled(piece: Callable, **options) -> Callable:
  """`jax.jit` of what draws."""
  return jax.jit(piece, compiler_options=CPU_OPTIONS if _on_cpu() else None, **options)


def over_rows(piece: Callable, spread: Spread | None, static_argnames: tuple[str, ...] = ()) -> Callable:
  """`compiled` of `piece(params, *rows)`, on the devices of `spread`, if there are any, each with its share of the
  rows."""
  if spread is None:
    return compiled(piece, static_argnames=static_argnames)
  return spread.over_rows(piece, compiled, static_argnames)


def arranged(params: Params | Callable[[], Params], rows: int) -> Callable[[], Params]:
  """What gives `params` inside a loop over tokens, each of so many rows; outside of it they are put in order, once: of
  loops in loops, outside of all."""
  if callable(params):
    return params
  prior = params["prior"]
  if not _pays(prior, rows):
    return lambda: params
  turned = jax.tree_util.tree_map_with_path(_outputs_first, prior)
  return lambda: params | {"prior": jax.tree_util.tree_map_with_path(_inputs_first, turned, prior)}


def _pays(prior: Params, rows: int) -> bool:
  few = rows <= FEW and all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(prior))
  return _on_cpu() and not few


def _on_cpu() -> bool:
  return jax.default_backend() == "cpu"


def _inputs(path: tuple) -> int:
  """How many axes of a leaf are inputs of a product; 0 where it is no matrix of one."""
  names = [key.key for key in path]
  if names[0] == "head":
    return 1
  if names[-1] != "kernel":
    return 0
  return 2 if names[-2] == TWO_INPUT_AXES else 1


def _outputs_first(path: tuple, leaf):
  """(outputs, inputs) of a matrix, its axes merged: products of more axes than two would rearrange it in each step."""
  n = _inputs(path)
  return leaf.reshape(math.prod(leaf.shape[:n]), -1).T if n else leaf


def _inputs_first(path: tuple, leaf, as_trained):
  return leaf.T.reshape(as_trained.shape) if _inputs(path) else leaf
