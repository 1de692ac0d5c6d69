"""Splash attention: JAX's block-sparse Pallas kernel for TPU behind `AttentionFn`.

Blocks that a static pattern hides are never computed, forward and backward; segments are compared inside the blocks.
Axes: B batch, T queries, S keys, H heads, G key/value heads, K head width.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_mask

from omniimage.models.attention import AttentionMask, Causal, Full, Pattern
from omniimage.models.remat import ATTENTION

TILE = 128  # lanes of the vector unit; lengths are padded to multiples of it
LARGEST_BLOCK = 1024  # positions; larger ones do not fit the chip's vector memory
UNSEEN = -1  # segment of padded keys

Kernel = Any  # a pytree: what a mask tells each grid step lies in its arrays


def splash_attention(
  q_BTHK: Array, k_BSGK: Array, v_BSGK: Array, mask: AttentionMask, interpret: bool = False
) -> Array:
  """Grouped-query attention by the kernel. Returns (B, T, H, K). `interpret` runs it on any platform, slowly."""
  T, H = q_BTHK.shape[1:3]
  kernel = splash_kernel(mask.pattern, T, k_BSGK.shape[1], H, interpret=interpret)
  return run_kernel(kernel, q_BTHK, k_BSGK, v_BSGK, mask.query_segments, mask.key_segments)


def splash_kernel(
  pattern: Pattern, T: int, S: int, heads: int, *, head_shards: int = 1, query_shards: int = 1, interpret: bool = False
) -> Kernel:
  """The kernel of a pattern over T queries and S keys.

  With shards it is cut for `shard_map` by `kernel.manual_sharding_spec`: over heads, and over the sequence of the
  queries, whose shards must be multiples of TILE.
  """
  queries, keys = padded(T), padded(S)
  block_q, block_kv = _block(queries // query_shards), _block(keys)
  sizes = splash.BlockSizes(
    block_q=block_q,
    block_kv=block_kv,
    block_q_dkv=block_q,
    block_kv_dkv=block_kv,
    use_fused_bwd_kernel=True,  # gradients of queries, keys and values in one pass: 5 products instead of 7
  )
  return splash.make_splash_mha(
    splash_mask.MultiHeadMask([_static_mask(pattern, T, S)] * heads),
    block_sizes=sizes,
    head_shards=head_shards,
    q_seq_shards=query_shards,
    residual_checkpoint_name=ATTENTION,
    interpret=interpret,
  )


def run_kernel(
  kernel: Kernel, q_BTHK: Array, k_BSGK: Array, v_BSGK: Array, query_segments: Array | None, key_segments: Array | None
) -> Array:
  """The kernel over a batch, or over one device's share of it."""
  B, T, _, K = q_BTHK.shape
  S = k_BSGK.shape[1]
  segments = _segments(query_segments, key_segments, B, T, S)
  q, k, v = (_heads_first(x) for x in (q_BTHK * K**-0.5, k_BSGK, v_BSGK))
  out_BHTK = jax.vmap(kernel)(q, k, v, segments)
  return jnp.swapaxes(out_BHTK[:, :, :T], 1, 2)


def padded(length: int) -> int:
  return -(-length // TILE) * TILE


def _heads_first(x_BLHK: Array) -> Array:
  L = x_BLHK.shape[1]
  return jnp.swapaxes(jnp.pad(x_BLHK, ((0, 0), (0, padded(L) - L), (0, 0), (0, 0))), 1, 2)


def _segments(of_queries: Array | None, of_keys: Array | None, batch: int, T: int, S: int):
  if of_queries is None:
    if padded(S) == S:
      return None
    of_queries, of_keys = jnp.zeros((batch, T), jnp.int32), jnp.zeros((batch, S), jnp.int32)
  of_queries = jnp.pad(of_queries, ((0, 0), (0, padded(T) - T)), mode="edge")
  return splash.SegmentIds(of_queries, jnp.pad(of_keys, ((0, 0), (0, padded(S) - S)), constant_values=UNSEEN))


def _static_mask(pattern: Pattern, T: int, S: int):
  shape = (padded(T), padded(S))
  if isinstance(pattern, Causal) and T == S:
    return splash_mask.CausalMask(shape)
  dense = None if isinstance(pattern, Full) else pattern.dense(T, S)
  if dense is None:
    return splash_mask.FullMask(shape)
  # A padded query repeats the last one: it must see something, and nothing reads it.
  dense = np.pad(dense, ((0, 0), (0, shape[1] - S)))
  return splash_mask.NumpyMask(np.pad(dense, ((0, shape[0] - T), (0, 0)), mode="edge"))


def _block(length: int) -> int:
  """The largest multiple of a tile that divides the length."""
  return max(size for size in range(TILE, LARGEST_BLOCK + 1, TILE) if length % size == 0)
