"""Attention: what may be seen, the reference product, and the module around it.

Axes: B batch, T queries, S keys, D width, H heads, G key/value heads, R query heads a key head, K head width.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from omniimage.models.layers import DotGeneral, RMSNorm, rotate, small_init
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


# Keys and values of a layer, (B, G, S, K) each: what grows with the context is so read once a token, never rearranged.
Cache = tuple[Array, Array]


def dot_product_attention(q_BTHK: Array, k_BSGK: Array, v_BSGK: Array, mask: AttentionMask) -> Array:
  """Grouped-query attention (Ainslie et al. 2023), the plain reference; softmax in float32. Returns (B, T, H, K)."""
  return _attend(q_BTHK, jnp.transpose(k_BSGK, (0, 2, 3, 1)), jnp.transpose(v_BSGK, (0, 2, 1, 3)), mask)


def _attend(q_BTHK: Array, k_BGKS: Array, v_BGSK: Array, mask: AttentionMask) -> Array:
  B, T, H, K = q_BTHK.shape
  G, S = v_BGSK.shape[1:3]
  # Heads go first and the R heads of a group lie one below the other, so that each group is two plain matrix products.
  q_BGTK = jnp.transpose((q_BTHK * K**-0.5).reshape(B, T, G, H // G, K), (0, 2, 3, 1, 4)).reshape(B, G, -1, K)
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


def blank_cache(batch: int, places: int, kv_heads: int, head_width: int, dtype: Any) -> Cache:
  """Of a layer, for so many places."""
  empty = jnp.zeros((batch, kv_heads, places, head_width), dtype)
  return empty, empty


def as_cache(k_BSGK: Array, v_BSGK: Array) -> Cache:
  return jnp.swapaxes(k_BSGK, 1, 2), jnp.swapaxes(v_BSGK, 1, 2)


def grown_caches(caches: tuple[Cache, ...], places: int) -> tuple[Cache, ...]:
  """Caches of layers with room for so many places."""
  more = places - caches[0][0].shape[2]
  return jax.tree.map(lambda x_BGSK: jnp.pad(x_BGSK, ((0, 0), (0, 0), (0, more), (0, 0))), caches)


def _written(cache: Cache, new: Cache, index: Array) -> Cache:
  """A cache with what is new, of T places, from place `index` on."""
  return tuple(
    jax.lax.dynamic_update_slice_in_dim(old, own.astype(old.dtype), index, axis=2) for old, own in zip(cache, new)
  )


class Attention(nn.Module):
  """Multi-head attention with rotary positions and optional QK-norm (Dehghani et al. 2023).

  Keys and values are those of another sequence (cross-attention), the queries' own, or a cache's, into which the
  sequence's own are first written at `cache_index`; None: nothing is written.
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
  dot_general: DotGeneral = jax.lax.dot_general

  def setup(self):
    dense = functools.partial(nn.DenseGeneral, dtype=self.dtype, dot_general=self.dot_general)

    def project(heads):
      return dense((heads, self.head_width), use_bias=self.qkv_bias)

    self.query, self.key, self.value = project(self.heads), project(self.kv_heads), project(self.kv_heads)
    self.out = dense(self.width, axis=(-2, -1), use_bias=False, kernel_init=small_init)
    if self.qk_norm:
      self.query_norm, self.key_norm = RMSNorm(*self.norm), RMSNorm(*self.norm)

  def keys_values(self, memory: Array, cos_sin) -> tuple[Array, Array]:
    """Keys and values of a sequence, each (B, S, G, K)."""
    key = self.key(memory)
    key = rotate(self.key_norm(key) if self.qk_norm else key, cos_sin)
    return tag(key, "key"), tag(self.value(memory), "value")

  def __call__(self, x: Array, cos_sin, mask: AttentionMask, keys_values=None, cache=None, cache_index=0):
    """(B, T, D) → (B, T, D) and the cache with this sequence's keys and values in it, None without a cache.

    `keys_values` are (B, S, G, K) each, those of a cache (B, G, S, K)."""
    query = self.query(x)
    query = tag(rotate(self.query_norm(query) if self.qk_norm else query, cos_sin), "query")
    if cache is None:
      keys_values = self.keys_values(x, cos_sin) if keys_values is None else keys_values
      return self.out(self.attention_fn(query, *keys_values, mask)), None
    if cache_index is not None:
      cache = _written(cache, as_cache(*self.keys_values(x, cos_sin)), cache_index)
    return self.out(_attend(query, jnp.swapaxes(cache[0], 2, 3), cache[1], mask)), cache
