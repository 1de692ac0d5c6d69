"""Weights in a smaller type, for drawing alone."""

import jax
import jax.numpy as jnp
import numpy as np

from omniimage.models.omni import Params

DTYPES = ("float32", "bfloat16")
TABLES = ("embed", "head")  # what a part looks words and codes up in, or compares states with


def weights_as(params: Params, dtype: str) -> Params:
  """Parameters with their matrices and tables, which is nearly all of them, in a type; the rest as it is.

  Each of these is turned into `compute_dtype` before it is used. So where that is bfloat16, weights in bfloat16 are
  what is computed with anyway, but for compilers that then leave the rounding out, as XLA's for CPUs does; elsewhere
  they are rounded once.
  """
  return jax.tree.map_with_path(lambda path, leaf: _as(leaf, dtype) if _is_matrix(path) else leaf, params)


def _is_matrix(path: tuple) -> bool:
  names = [key.key for key in path]
  return names[-1] == "kernel" or any(table in names for table in TABLES)


def _as(leaf, dtype: str):
  return leaf.astype(jnp.dtype(dtype)) if isinstance(leaf, np.ndarray | jax.Array) else leaf
