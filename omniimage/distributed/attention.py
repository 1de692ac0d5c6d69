"""Attention on a mesh, and with it where activations lie: every layer of every part passes through here.

Rows lie over (data, fsdp), heads over `tensor`, queries over `sequence`; each query sees the keys of the whole
sequence, so keys and values are gathered over `sequence`. The compiler spreads that over the rest of a layer. What does
not divide stays whole. Axes: B batch, T queries, S keys, H heads, G key/value heads, K head width.
"""

import functools
import math

import jax
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from omniimage.distributed.mesh import batch_axes
from omniimage.models.attention import AttentionFn, AttentionMask, dot_product_attention
from omniimage.models.compute_type import capability, lacks_bfloat16
from omniimage.models.cudnn import allowed_of, cudnn_attention, fits, static
from omniimage.models.cudnn import run_kernel as run_cudnn
from omniimage.models.kernels import attention_in_blocks
from omniimage.models.splash import TILE, run_kernel, splash_attention, splash_kernel


def attention_for(mesh: Mesh, own_rows: bool) -> AttentionFn:
  """Splash attention on TPUs, cuDNN's on GPUs that have it, elsewhere the plain product, on CPUs in blocks. `own_rows`:
  called under `shard_map`, on a device's rows."""
  device = mesh.devices.flat[0]
  own, sharded = dot_product_attention, sharded_dot_product
  if device.platform == "tpu":
    own, sharded = splash_attention, sharded_splash
  elif device.platform == "cpu" and mesh.shape["sequence"] == 1:  # blocks would cut again what is cut over the mesh
    own, sharded = attention_in_blocks, functools.partial(sharded_dot_product, product=attention_in_blocks)
  elif capability(device) and not lacks_bfloat16(device):
    own, sharded = cudnn_attention, sharded_cudnn
  return own if own_rows else sharded(mesh)


def sharded_dot_product(mesh: Mesh, product: AttentionFn = dot_product_attention) -> AttentionFn:
  """A product that the compiler can divide, its operands and result laid on the mesh."""

  def attend(q_BTHK: Array, k_BSGK: Array, v_BSGK: Array, mask: AttentionMask) -> Array:
    queries, keys = _specs(mesh, q_BTHK.shape, k_BSGK.shape)
    q_BTHK, k_BSGK, v_BSGK = (_lay(mesh, x, spec) for x, spec in ((q_BTHK, queries), (k_BSGK, keys), (v_BSGK, keys)))
    return _lay(mesh, product(q_BTHK, k_BSGK, v_BSGK, mask), queries)

  return attend


def sharded_splash(mesh: Mesh, interpret: bool = False) -> AttentionFn:
  """The kernel under `shard_map`: no compiler can divide it by itself."""

  def attend(q_BTHK: Array, k_BSGK: Array, v_BSGK: Array, mask: AttentionMask) -> Array:
    T, H = q_BTHK.shape[1:3]
    if T == 1:  # one token at a time: no blocks to leave out
      return sharded_dot_product(mesh)(q_BTHK, k_BSGK, v_BSGK, mask)
    queries, keys = _specs(mesh, q_BTHK.shape, k_BSGK.shape, TILE)
    rows, over_queries, over_heads, _ = queries
    heads, sequence = (mesh.shape[axis] if axis else 1 for axis in (over_heads, over_queries))
    S, shards = k_BSGK.shape[1], dict(head_shards=heads, interpret=interpret)
    if mask.pattern.dense(T, S) is None:  # all queries see the same: one kernel does for every shard of them
      kernel, over_mask = splash_kernel(mask.pattern, T // sequence, S, H, **shards), None
    else:
      kernel, over_mask = splash_kernel(mask.pattern, T, S, H, query_shards=sequence, **shards), over_queries
    of_kernel = kernel.manual_sharding_spec(NamedSharding(mesh, P(over_heads, over_mask)))
    segments = () if mask.query_segments is None else (mask.query_segments, mask.key_segments)
    of_segments = (P(rows, over_queries), P(rows, None))[: len(segments)]

    def local(kernel, q, k, v, *segments):
      return run_kernel(kernel, q, k, v, *(segments or (None, None)))

    return jax.shard_map(
      local,
      mesh=mesh,
      in_specs=(of_kernel, queries, keys, keys, *of_segments),
      out_specs=queries,
      check_vma=False,  # the kernel does not say over which axes its results vary
    )(kernel, q_BTHK, k_BSGK, v_BSGK, *segments)

  return attend


def sharded_cudnn(mesh: Mesh, implementation: str = "cudnn") -> AttentionFn:
  """cuDNN's kernel under `shard_map`; `implementation` as of `cudnn_attention`. A device that has some of the queries
  is told by a mask which keys each of them sees."""

  def attend(q_BTHK: Array, k_BSGK: Array, v_BSGK: Array, mask: AttentionMask) -> Array:
    if not fits(q_BTHK, k_BSGK, v_BSGK):
      return sharded_dot_product(mesh)(q_BTHK, k_BSGK, v_BSGK, mask)
    queries, keys = _specs(mesh, q_BTHK.shape, k_BSGK.shape)
    rows, over_queries = queries[:2]
    T, S = q_BTHK.shape[1], k_BSGK.shape[1]
    whole = over_queries is None or mesh.shape[over_queries] == 1
    causal, static_TS = static(mask.pattern, T, S) if whole else (False, mask.pattern.dense(T, S))

    def local(q, k, v, static_TS, *segments):
      return run_cudnn(q, k, v, causal, allowed_of(static_TS, *segments), implementation)

    return jax.shard_map(
      local,
      mesh=mesh,
      in_specs=(queries, keys, keys, P(over_queries, None), P(rows, over_queries), P(rows, None)),
      out_specs=queries,
      check_vma=False,  # nor does this kernel
    )(q_BTHK, k_BSGK, v_BSGK, static_TS, mask.query_segments, mask.key_segments)

  return attend


def _specs(mesh: Mesh, of_queries: tuple[int, ...], of_keys: tuple[int, ...], tile: int = 1) -> tuple[P, P]:
  """How queries and keys lie: over the axes that divide them, heads only where both kinds of head divide."""
  rows = batch_axes if of_queries[0] % math.prod(mesh.shape[axis] for axis in batch_axes) == 0 else None
  sequence = "sequence" if of_queries[1] % (mesh.shape["sequence"] * tile) == 0 else None
  heads = "tensor" if of_keys[2] % mesh.shape["tensor"] == 0 else None
  return P(rows, sequence, heads, None), P(rows, None, heads, None)


def _lay(mesh: Mesh, x: Array, spec: P) -> Array:
  return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))
