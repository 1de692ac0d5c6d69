"""The two products of a layer, as a platform computes them best; the result differs only by rounding."""

import dataclasses
import math

import jax
from jax import Array

from omniimage.models.attention import AttentionFn, dot_product_attention
from omniimage.models.layers import DotGeneral


@dataclasses.dataclass(frozen=True)
class Kernels:
  """Flax compares modules by their fields, so it is hashable.

  Attributes:
    attention: the product of queries, keys and values.
    dot_general: the product of activations and a matrix.
  """

  attention: AttentionFn = dot_product_attention
  dot_general: DotGeneral = jax.lax.dot_general


PLAIN = Kernels()


def merged_rows(x: Array, kernel: Array, dimension_numbers, **options) -> Array:
  """`jax.lax.dot_general` of activations (…, inputs) and a matrix (inputs, outputs), its axes merged into two on each
  side; inputs and outputs may be several axes.

  The gradient of a matrix sums over all axes of rows. Where these are two, XLA's CPU backend first turns the whole
  array of activations, which takes as long as half the product.
  """
  (_, inputs), _ = dimension_numbers
  n = len(inputs)
  rows, outputs, summed = x.shape[: x.ndim - n], kernel.shape[n:], math.prod(kernel.shape[:n])
  x, kernel = x.reshape(math.prod(rows), summed), kernel.reshape(summed, math.prod(outputs))
  return jax.lax.dot_general(x, kernel, (((1,), (0,)), ((), ())), **options).reshape(*rows, *outputs)
