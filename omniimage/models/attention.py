"""Attention: what may be seen, the reference product, and the module around it.

Axes: B batch, T queries, S keys, D width, H heads, G key/value heads, R query heads a key head, K head width.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from omniimage.models.layers import RMSNorm, rotate, small_init
from omniimage.models.remat import ATTENTION, tag

MASKED = -1e30  # finite, so that a query that sees nothing gets a mean instead of NaN


class Pattern(Protocol):
  """A static rule of who sees whom. Hashable, so that kernels can be built for it once."""

  def dense(self, queries: int, keys: int) -> np.ndarray | None:
    """(T, S) bool, or None where everything is seen."""


@dataclasses.dataclass(frozen=True)
class Full:
  def dense(self, queries: int, keys: int) -> None:
    return None


@dataclasses.dataclass(frozen=True)
class Causal:
  """A query sees the keys up to itself; queries are the last of the keys' positions."""

  def dense(self, queries: int, keys: int) -> np.ndarray:
    return np.tril(np.ones((queries, keys), bool), keys - queries)


@flax.struct.dataclass
class AttentionMask:
  """A static pattern and, beside it, segments: a query sees the keys of its own segment only."""

  pattern: Pattern = flax.struct.field(pytree_node=False, default=Full())
  query_segments: Array | None = None  # (B, T)
  key_segments: Array | None = None  # (B, S)

  def dense(self, queries: int, keys: int) -> Array | None:
    """bool, broadcastable to (B, T, S), or None where everything is seen."""
    static = self.pattern.dense(queries, keys)
    allowed = None if static is None else jnp.asarray(static)[None]
    if self.query_segments is not None:
      same = self.query_segments[:, :, None] == self.key_segments[:, None, :]
      allowed = same if allowed is None else allowed & same
    return allowed


# (queries, keys, values, mask) → (B, T, H, K). It tags its own result, for the kernel on TPU has more to keep.
AttentionFn = Callable[[Array, Array, Array, AttentionMask], Array]


def dot_product_attention(q_BTHK: Array, k_BSGK: Array, v_BSGK: Array, mask: AttentionMask) -> Array:
  """Grouped-query attention (Ainslie et al. 2023), the plain reference; softmax in float32. Returns (B, T, H, K)."""
  B, T, H, K = q_BTHK.shape
  S, G = k_BSGK.shape[1:3]
  # Heads go first and the R heads of a group lie one below the other, so that each group is two plain matrix products.
  q_BGTK = jnp.transpose((q_BTHK * K**-0.5).reshape(B, T, G, H // G, K), (0, 2, 3, 1, 4)).reshape(B, G, -1, K)
  k_BGKS, v_BGSK = jnp.transpose(k_BSGK, (0, 2, 3, 1)), jnp.transpose(v_BSGK, (0, 2, 1, 3))
  logits_BGTS = jnp.matmul(q_BGTK, k_BGKS, preferred_element_type=jnp.float32)
  allowed = mask.dense(T, S)
  if allowed is not None:
    logits_BGRTS = logits_BGTS.reshape(B, G, H // G, T, S)
    logits_BGTS = jnp.where(allowed[:, None, None], logits_BGRTS, MASKED).reshape(logits_BGTS.shape)
  weights_BGTS = jnp.exp(logits_BGTS - jax.lax.stop_gradient(jnp.max(logits_BGTS, axis=-1, keepdims=True)))
  # Dividing the T × K result is cheaper than the T × S weights.
  out_BGTK = jnp.matmul(weights_BGTS.astype(v_BGSK.dtype), v_BGSK, preferred_element_type=jnp.float32)
  out_BGTK /= jnp.sum(weights_BGTS, axis=-1, keepdims=True)
  out_BTHK = jnp.transpose(out_BGTK.reshape(B, G, H // G, T, K), (0, 3, 1, 2, 4)).reshape(B, T, H, K)
  return tag(out_BTHK.astype(q_BTHK.dtype), ATTENTION)


class Attention(nn.Module):
  """Multi-head attention with rotary positions and optional QK-norm (Dehghani et al. 2023).

  Keys and values come from `memory` (cross-attention), from the queries' own sequence, or from a cache into which the
  sequence's own keys and values are first written at `cache_index`.
  """

  width: int
  heads: int
  kv_heads: int
  head_width: int
  qk_norm: bool = True
  qkv_bias: bool = False
  norm: tuple[float, float] = (1e-6, 0.0)  # of RMSNorm, for QK-norm: epsilon, offset
  dtype: Any = jnp.float32
  attention_fn: AttentionFn = dot_product_attention

  def setup(self):
    def project(heads):
      return nn.DenseGeneral((heads, self.head_width), use_bias=self.qkv_bias, dtype=self.dtype)

    self.query, self.key, self.value = project(self.heads), project(self.kv_heads), project(self.kv_heads)
    self.out = nn.DenseGeneral(self.width, axis=(-2, -1), use_bias=False, dtype=self.dtype, kernel_init=small_init)
    if self.qk_norm:
      self.query_norm, self.key_norm = RMSNorm(*self.norm), RMSNorm(*self.norm)

  def keys_values(self, memory: Array, cos_sin) -> tuple[Array, Array]:
    """Keys and values of a sequence, each (B, S, G, K)."""
    key = self.key(memory)
    key = rotate(self.key_norm(key) if self.qk_norm else key, cos_sin)
    return tag(key, "key"), tag(self.value(memory), "value")

  def __call__(self, x: Array, cos_sin, mask: AttentionMask, keys_values=None, cache=None, cache_index=0):
    """(B, T, D) → (B, T, D) and the cache with this sequence's keys and values in it, None without a cache."""
    query = self.query(x)
    query = tag(rotate(self.query_norm(query) if self.qk_norm else query, cos_sin), "query")
    if keys_values is None:
      keys_values = self.keys_values(x, cos_sin)
    if cache is not None:
      cache = keys_values = tuple(
        jax.lax.dynamic_update_slice_in_dim(buffer, new.astype(buffer.dtype), cache_index, axis=1)
        for buffer, new in zip(cache, keys_values)
      )
    return self.out(self.attention_fn(query, *keys_values, mask)), cache
