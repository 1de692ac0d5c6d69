"""The two products of a layer, as a platform computes them best; the result differs only by rounding."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import Array

from omniimage.models.attention import AttentionFn, AttentionMask, Causal, dot_product_attention
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
BLOCK = 64  # queries whose logits stay in a core's cache


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


def attention_in_blocks(q_BTHK: Array, k_BSGK: Array, v_BSGK: Array, mask: AttentionMask) -> Array:
  """`dot_product_attention` of a sequence on its past, some queries at a time, each with the keys up to the last.

  Half of the logits are never computed, and those of a few queries do not leave the cache of a core, as all of a long
  row do, again and again.
  """
  T, blocks = q_BTHK.shape[1], round(q_BTHK.shape[1] / BLOCK)
  if blocks < 2 or not isinstance(mask.pattern, Causal) or k_BSGK.shape[1] != T:
    return dot_product_attention(q_BTHK, k_BSGK, v_BSGK, mask)
  ends = [T * (block + 1) // blocks for block in range(blocks)]
  parts = []
  for first, end in zip([0, *ends], ends):
    segments = mask.query_segments, mask.key_segments
    of_queries, of_keys = (None, None) if segments[0] is None else (segments[0][:, first:end], segments[1][:, :end])
    own = AttentionMask(mask.pattern, of_queries, of_keys)
    parts.append(dot_product_attention(q_BTHK[:, first:end], k_BSGK[:, :end], v_BSGK[:, :end], own))
  return jnp.concatenate(parts, axis=1)
