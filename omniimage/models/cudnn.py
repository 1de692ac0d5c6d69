"""Flash attention of cuDNN on NVIDIA GPUs (Dao et al. 2022), which JAX calls, behind `AttentionFn`.

The logits are never written to memory. Causal attention leaves out what lies ahead; all else that is hidden is a mask,
one for all heads, which the kernel adds to the logits. Axes: B batch, T queries, S keys, H heads, G key/value heads, K
head width.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from omniimage.models.attention import AttentionMask, Causal, Pattern, dot_product_attention

WIDEST = 128  # head width; cards from Hopper on take 256
EIGHT = 8  # head widths must be multiples of it, and lengths are padded to some; JAX takes even ones alone


def cudnn_attention(
  q_BTHK: Array, k_BSGK: Array, v_BSGK: Array, mask: AttentionMask, implementation: str = "cudnn"
) -> Array:
  """Grouped-query attention by the kernel, by the plain product where it does not fit. Returns (B, T, H, K).

  `implementation` is JAX's: "xla" is the same call on any platform. What the kernel gives needs no tag for the backward
  pass, see `models.remat`."""
  if not fits(q_BTHK, k_BSGK, v_BSGK):
    return dot_product_attention(q_BTHK, k_BSGK, v_BSGK, mask)
  causal, static_TS = static(mask.pattern, q_BTHK.shape[1], k_BSGK.shape[1])
  allowed = allowed_of(static_TS, mask.query_segments, mask.key_segments)
  return run_kernel(q_BTHK, k_BSGK, v_BSGK, causal, allowed, implementation)


def fits(q_BTHK: Array, k_BSGK: Array, v_BSGK: Array) -> bool:
  """Whether the kernel takes them. A token alone is no work for it."""
  T, width = q_BTHK.shape[1], q_BTHK.shape[3]
  half = all(x.dtype == jnp.bfloat16 for x in (q_BTHK, k_BSGK, v_BSGK))
  return half and T > 1 and width <= WIDEST and width % EIGHT == 0


def static(pattern: Pattern, T: int, S: int) -> tuple[bool, np.ndarray | None]:
  """Whether the kernel itself hides what lies ahead and, else, who sees whom, (T, S); None: all is seen."""
  causal = isinstance(pattern, Causal) and T == S  # it counts from the first key, and we from the last
  return causal, None if causal else pattern.dense(T, S)


def allowed_of(static_TS: Array | None, query_segments: Array | None, key_segments: Array | None) -> Array | None:
  """(B or 1, T, S) bool, or None where everything is seen."""
  allowed = None if static_TS is None else jnp.asarray(static_TS)[None]
  if query_segments is None:
    return allowed
  same = query_segments[:, :, None] == key_segments[:, None, :]
  return same if allowed is None else allowed & same


def run_kernel(
  q_BTHK: Array, k_BSGK: Array, v_BSGK: Array, causal: bool, allowed: Array | None, implementation: str = "cudnn"
) -> Array:
  """The kernel over a batch, or over one device's share of it."""
  (B, T), S = q_BTHK.shape[:2], k_BSGK.shape[1]
  more_T, more_S, lengths = -T % EIGHT, -S % EIGHT, None
  q_BTHK, k_BSGK, v_BSGK = (_longer(x, more) for x, more in ((q_BTHK, more_T), (k_BSGK, more_S), (v_BSGK, more_S)))
  if allowed is not None:
    # A padded query repeats the last one: it must see something, and nothing reads it.
    allowed = jnp.pad(jnp.pad(allowed, ((0, 0), (0, 0), (0, more_S))), ((0, 0), (0, more_T), (0, 0)), mode="edge")
    allowed = allowed[:, None]
  elif more_S and not causal:  # causal: padded keys lie ahead of every query that is read
    lengths = jnp.full((B,), S, jnp.int32)
  out_BTHK = jax.nn.dot_product_attention(
    q_BTHK,
    k_BSGK,
    v_BSGK,
    mask=allowed,
    is_causal=causal,
    key_value_seq_lengths=lengths,
    implementation=implementation,
  )
  return out_BTHK[:, :T]


def _longer(x_BLHK: Array, more: int) -> Array:
  return jnp.pad(x_BLHK, ((0, 0), (0, more), (0, 0), (0, 0)))
