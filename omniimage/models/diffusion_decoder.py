"""The diffusion decoder: a pixel-space transformer that paints an image from its visual tokens, chunk by chunk.

Where settings, parameters and code say only `decoder`, they mean this part, never the image tokenizer's own decoder.

It predicts the clean patches x̂ from noisy ones (JiT, Li & He 2025), conditioned in three ways: the visual token of the
same place is added to each patch; cross-attention reads all visual tokens, the rows below included; and the text
states. Times enter through one shared modulation with a table a layer (adaLN-single, Chen et al. 2023).

Patches stand in the painting order of their layout. Those of this step come in whole groups of it, as spans (first
group, number of groups): time is one per group, and selecting groups is slicing. Axes: B images, N patches of the
canvas, R groups of this step, T their patches, P pixels of a patch, D width, h × w visual tokens, Z their channels, S
text states, M memory (visual tokens, text states, one null).
"""

import math
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from omniimage.models.attention import Attention, AttentionMask, Full, as_cache, blank_cache
from omniimage.models.chunks import ChunkLayout
from omniimage.models.execution import Execution, apply_layers, layer_stack
from omniimage.models.layers import GatedMLP, RMSNorm, grid_positions, rms_normalize, rotary, small_init
from omniimage.models.tokenizer import IMAGE_ROPE_THETA
from omniimage.settings import DecoderSettings

TIME_FREQUENCIES = 64


@flax.struct.dataclass
class Memory:
  """What an image is painted from.

  Attributes:
    aligned: (B, N, D), the visual token of each patch's place, to be added to it; in painting order.
    states: (B, M, D), to be attended to.
    segments: (B, M) int32, 1 where a state is seen and 0 where it is not.
  """

  aligned: Array
  states: Array
  segments: Array


def time_features(t: Array) -> Array:
  """Sinusoids of t in [0, 1]: (...) → (..., 2·TIME_FREQUENCIES)."""
  ladder = jnp.arange(TIME_FREQUENCIES, dtype=jnp.float32) / TIME_FREQUENCIES
  angles = 1000.0 * t[..., None] * jnp.exp(-math.log(10_000.0) * ladder)
  return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def modulate(x_BTD: Array, scale_BRD: Array, shift_BRD: Array | None = None) -> Array:
  """(1 + scale) · x + shift, with one scale and shift for each group of patches."""
  B, R, D = scale_BRD.shape
  x = x_BTD.reshape(B, R, -1, D) * (1 + scale_BRD[:, :, None])
  return (x if shift_BRD is None else x + shift_BRD[:, :, None]).reshape(x_BTD.shape)


def take_groups(x: Array, spans, group: int) -> Array:
  """Patches (B, T, …) of the spans of groups, from (B, N, …)."""
  return jnp.concatenate(
    [jax.lax.dynamic_slice_in_dim(x, first * group, count * group, axis=1) for first, count in spans], axis=1
  )


class TimeEmbedding(nn.Module):
  width: int
  dtype: Any = jnp.float32
  out_init: nn.initializers.Initializer = nn.linear.default_kernel_init

  @nn.compact
  def __call__(self, t: Array) -> Array:
    hidden = nn.silu(nn.Dense(self.width, dtype=self.dtype, name="hidden")(time_features(t)))
    return nn.silu(nn.Dense(self.width, dtype=self.dtype, kernel_init=self.out_init, name="out")(hidden))


class DiffusionBlock(nn.Module):
  """Self-attention, cross-attention to the memory, gated MLP; the first and last modulated by time."""

  settings: DecoderSettings
  execution: Execution

  def setup(self):
    s, run = self.settings, self.execution
    shared = dict(
      width=s.width, heads=s.heads, kv_heads=s.kv_heads, head_width=s.width // s.heads,
      dtype=run.dtype, attention_fn=run.kernels.attention, dot_general=run.kernels.dot_general,
    )  # fmt: skip
    self.attention, self.cross_attention = Attention(**shared), Attention(**shared)
    self.cross_norm = RMSNorm()
    self.mlp = GatedMLP(s.width, s.mlp_width, run.dtype, run.kernels.dot_general)
    self.modulation = self.param("modulation", nn.initializers.zeros, (6, s.width), jnp.float32)

  def memory_keys_values(self, states: Array, memory_cos_sin):
    return self.cross_attention.keys_values(states, memory_cos_sin)

  def __call__(self, x, modulation_BR6D, rotations, mask, memory: Memory, cache_index=0, cache=None):
    """`cache`, in sampling, is (that of finished and present patches, that of the memory)."""
    cos_sin, memory_cos_sin = rotations
    dtype = self.execution.dtype
    modulation_BR6D = (modulation_BR6D + self.modulation).astype(dtype)
    shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = (modulation_BR6D[:, :, i] for i in range(6))
    own_cache, memory_cache = (None, None) if cache is None else cache

    y = modulate(rms_normalize(x).astype(dtype), scale, shift)
    y, own_cache = self.attention(y, cos_sin, mask, cache=own_cache, cache_index=cache_index)
    x = x + modulate(y, gate)

    keys_values = self.memory_keys_values(memory.states, memory_cos_sin) if memory_cache is None else None
    seen = AttentionMask(Full(), jnp.ones(x.shape[:2], jnp.int32), memory.segments)
    y = self.cross_norm(x)
    x = x + self.cross_attention(y, cos_sin, seen, keys_values=keys_values, cache=memory_cache, cache_index=None)[0]

    y = modulate(rms_normalize(x).astype(dtype), mlp_scale, mlp_shift)
    x = x + modulate(self.mlp(y), mlp_gate)
    return x, None if cache is None else (own_cache, memory_cache)


class DiffusionDecoder(nn.Module):
  settings: DecoderSettings
  execution: Execution = Execution()

  def setup(self):
    s, dtype = self.settings, self.execution.dtype
    vector = nn.initializers.normal(1.0)
    self.patches = nn.Dense(s.width, dtype=dtype)
    self.tokens = nn.Dense(s.width, dtype=dtype)
    self.text = nn.Dense(s.width, dtype=dtype)
    self.null_tokens = self.param("null_tokens", vector, (s.width,), jnp.float32)
    self.null_text = self.param("null_text", vector, (s.width,), jnp.float32)
    self.time = TimeEmbedding(s.width, dtype)
    if s.reads_gap:
      self.gap = TimeEmbedding(s.width, dtype, nn.initializers.zeros)  # as if it were not there, until it is taught
    self.modulation = nn.Dense(6 * s.width, kernel_init=nn.initializers.zeros)
    self.layers = layer_stack(DiffusionBlock, s.depth, self.execution, settings=s)
    self.norm = RMSNorm()
    self.final_modulation = nn.Dense(2 * s.width, kernel_init=nn.initializers.zeros)
    self.pixels = nn.Dense(3 * s.patch_size**2, kernel_init=small_init)

  def remember(
    self,
    features: Array,
    text_states: Array,
    text_mask: Array,
    keep_tokens: Array,
    keep_text: Array,
    layout: ChunkLayout,
  ) -> Memory:
    """Builds the memory.

    Args:
      features: (B, h, w, Z) quantized features.
      text_states: (B, S, prior width).
      text_mask: (B, S) bool, which of them exist.
      keep_tokens, keep_text: (B,) bool; False leaves the condition out, for guidance.
      layout: of the patches that will be painted from it.
    """
    B, h, w, Z = features.shape
    scale = self.settings.pixels_per_token // self.settings.patch_size
    tokens = self.tokens(features.reshape(B, h * w, Z))
    placed = jnp.where(keep_tokens[:, None, None], tokens, self.null_tokens.astype(self.execution.dtype))
    aligned = jnp.broadcast_to(placed.reshape(B, h, 1, w, 1, -1), (B, h, scale, w, scale, placed.shape[-1]))
    aligned = aligned.reshape(B, h * w * scale**2, -1)
    text = self.text(text_states)
    null = jnp.broadcast_to(self.null_text.astype(self.execution.dtype), (B, 1, text.shape[-1]))
    segments = [
      jnp.broadcast_to(keep_tokens[:, None], (B, h * w)),
      text_mask & keep_text[:, None],
      jnp.ones((B, 1), bool),
    ]
    states = jnp.concatenate([tokens, text, null], axis=1)
    return Memory(layout.ordered(aligned), states, jnp.concatenate(segments, axis=1).astype(jnp.int32))

  def rotations(self, spans, memory: Memory, layout: ChunkLayout):
    """Rotary tables of the patches of this step and of the memory; both in units of visual tokens, text at the
    origin."""
    s = self.settings
    scale = s.patch_size / s.pixels_per_token
    places = layout.ordered(grid_positions(layout.rows, layout.columns, scale)[None])
    places = take_groups(places, spans, layout.group)[0]
    tokens = grid_positions(int(layout.rows * scale), int(layout.columns * scale))
    origin = jnp.zeros((memory.states.shape[1] - tokens.shape[0], 2), jnp.float32)
    head_width = s.width // s.heads
    return tuple(
      rotary(positions[None], head_width, IMAGE_ROPE_THETA) for positions in (places, jnp.concatenate([tokens, origin]))
    )

  def __call__(
    self,
    patches: Array,
    spans,
    t: Array,
    memory: Memory,
    mask: AttentionMask,
    layout: ChunkLayout,
    caches=None,
    cache_index=0,
    gap: Array | None = None,
  ):
    """Clean patches from noisy ones.

    Args:
      patches: (B, T, P), noisy or finished.
      spans: (first group, number of groups) of each run of groups they are; a first one may be traced.
      t: (B, R) time of each group, 0 noise and 1 clean.
      memory: of `remember`, for this layout.
      mask: who sees whom, over (T, T) or, with caches, (T, places of the caches).
      layout: whose painting order the patches of the canvas have.
      caches: of `init_caches`; these T patches are written at `cache_index`.
      gap: (B, R) how far from t the time is to which x̂ is to lead at once, if the decoder reads it; None: no way.

    Returns:
      x̂ (B, T, P) float32 and the caches.
    """
    time = self.time(t)
    if self.settings.reads_gap:
      time += self.gap(jnp.zeros_like(t) if gap is None else gap)
    modulation = self.modulation(time).reshape(*t.shape, 6, self.settings.width)
    x = self.patches(patches) + take_groups(memory.aligned, spans, layout.group)
    rotations = self.rotations(spans, memory, layout)
    x, caches = apply_layers(self.layers, x, modulation, rotations, mask, memory, cache_index, caches=caches)
    scale, shift = jnp.split(self.final_modulation(time), 2, axis=-1)
    return self.pixels(modulate(self.norm(x).astype(jnp.float32), scale, shift)), caches

  def init_caches(self, memory: Memory, layout: ChunkLayout, places: int) -> tuple:
    """Per layer: an empty cache of so many patches, and that of the memory, computed once."""
    s = self.settings
    empty = blank_cache(len(memory.states), places, s.kv_heads, s.width // s.heads, self.execution.dtype)
    _, memory_cos_sin = self.rotations(((0, 1),), memory, layout)
    return tuple((empty, as_cache(*layer.memory_keys_values(memory.states, memory_cos_sin))) for layer in self.layers)

  def init_parameters(self, features: Array, text_states: Array):
    """Touches every parameter, for `init`."""
    B, h, w, _ = features.shape
    keep, scale = jnp.ones((B,), bool), self.settings.pixels_per_token // self.settings.patch_size
    layout = ChunkLayout(h * scale, w * scale, 0)
    memory = self.remember(features, text_states, jnp.ones(text_states.shape[:2], bool), keep, keep, layout)
    patches = jnp.zeros((B, layout.rows * layout.columns, 3 * self.settings.patch_size**2))
    times = jnp.zeros((B, layout.groups))
    return self(patches, ((0, layout.groups),), times, memory, AttentionMask(), layout)[0]
