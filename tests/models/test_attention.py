import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.models.attention import AttentionMask, Causal, Full, dot_product_attention


def _qkv(heads=4, kv_heads=2, length=9, width=8):
  shapes = [(2, length, n, width) for n in (heads, kv_heads, kv_heads)]
  return [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("causal", [False, True])
def test_the_reference_equals_the_library_one_with_grouped_heads(causal):
  q, k, v = _qkv()
  mask = AttentionMask(Causal() if causal else Full())
  ours = dot_product_attention(q, k, v, mask)
  np.testing.assert_allclose(ours, jax.nn.dot_product_attention(q, k, v, is_causal=causal), rtol=1e-5, atol=1e-6)


def test_a_query_sees_its_own_segment_and_its_past_only():
  q, k, v = _qkv()
  segments = jnp.asarray([[1, 1, 1, 2, 2, 2, 2, 0, 0]] * 2)
  attend = lambda v: dot_product_attention(q, k, v, AttentionMask(Causal(), segments, segments))  # noqa: E731
  influence = np.asarray(jnp.abs(jax.jacobian(lambda v: attend(v).sum((0, 2, 3)))(v)).sum((1, 3, 4)))
  expected = np.tril(np.ones((9, 9), bool)) & (segments[0][:, None] == segments[0][None])
  np.testing.assert_array_equal(influence > 0, expected)


def test_a_causal_pattern_with_more_keys_than_queries_takes_the_last_positions():
  np.testing.assert_array_equal(Causal().dense(2, 4), [[1, 1, 1, 0], [1, 1, 1, 1]])


def test_masks_are_static_patterns_that_can_key_a_cache():
  assert AttentionMask(Causal()).pattern == Causal() and len({Causal(), Causal(), Full()}) == 2
  assert jax.tree.leaves(AttentionMask(Causal())) == []
