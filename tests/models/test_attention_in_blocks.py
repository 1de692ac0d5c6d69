"""Attention some queries at a time is the plain one, with half of the work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.models.attention import AttentionMask, Causal, Full, dot_product_attention
from omniimage.models.kernels import BLOCK, attention_in_blocks


def operands(T: int, rows: int = 2, heads: int = 4, groups: int = 2, width: int = 8):
  keys = jax.random.split(jax.random.key(0), 3)
  shapes = ((rows, T, own, width) for own in (heads, groups, groups))
  q, k, v = (jax.random.normal(key, shape) for key, shape in zip(keys, shapes))
  return q, k, v, jnp.asarray(np.arange(T) * 3 // T, jnp.int32)[None].repeat(rows, axis=0)


def values_and_gradients(attention, q, k, v, mask):
  def summed(q, k, v):
    out = attention(q, k, v, mask)
    return jnp.sum(jnp.sin(out)), out

  (_, out), gradients = jax.jit(jax.value_and_grad(summed, argnums=(0, 1, 2), has_aux=True))(q, k, v)
  return out, *gradients


@pytest.mark.parametrize("T", [BLOCK, 2 * BLOCK, 5 * BLOCK // 2, 3 * BLOCK + 7])
@pytest.mark.parametrize("packed", [False, True])
def test_values_and_gradients_are_those_of_the_plain_product(T, packed):
  q, k, v, segments = operands(T)
  mask = AttentionMask(Causal(), segments, segments) if packed else AttentionMask(Causal())
  plain, blocks = (
    values_and_gradients(attention, q, k, v, mask) for attention in (dot_product_attention, attention_in_blocks)
  )
  for ours, expected in zip(blocks, plain):
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_logits_of_the_future_are_not_computed():
  q, k, v, _ = operands(8 * BLOCK)

  def products(attention) -> float:
    compiled = jax.jit(lambda *args: attention(*args, AttentionMask(Causal()))).lower(q, k, v).compile()
    return compiled.cost_analysis()["flops"]

  assert products(attention_in_blocks) < 0.6 * products(dot_product_attention)


@pytest.mark.parametrize("mask", [AttentionMask(Full()), AttentionMask()])
def test_what_sees_everything_is_left_as_it_is(mask):
  q, k, v, _ = operands(2 * BLOCK)
  np.testing.assert_array_equal(attention_in_blocks(q, k, v, mask), dot_product_attention(q, k, v, mask))


def test_a_few_queries_on_a_long_past_are_the_last_ones():
  q, k, v, _ = operands(3 * BLOCK)
  last = attention_in_blocks(q[:, -2:], k, v, AttentionMask(Causal()))
  np.testing.assert_allclose(last, attention_in_blocks(q, k, v, AttentionMask(Causal()))[:, -2:], rtol=1e-4, atol=1e-5)
