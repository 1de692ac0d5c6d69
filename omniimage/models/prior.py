"""The prior: one decoder-only transformer over text, specials and image codes.

A superset of Llama, Qwen2.5, Qwen3 and Gemma 3: RMSNorm, SwiGLU, grouped-query attention, optional QK-norm and q/k/v
bias, tied or untied head. Tables are kept apart by kind, text with specials and image codes, each padded to a multiple
of 128: the grammar says which kind comes next, so each cross-entropy needs only its own table.

Axes: B rows, L positions, D width, V ids of a table, S places of the cache, G key/value heads, K head width.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from omniimage.models.adapter import READ, Adapter, InputFeatures
from omniimage.models.attention import Attention, AttentionMask, Cache, blank_cache
from omniimage.models.execution import Execution, apply_layers, layer_stack
from omniimage.models.grid_embedding import GridEmbedding
from omniimage.models.layers import GatedMLP, RMSNorm, rotary
from omniimage.models.remat import tag
from omniimage.settings import PriorSettings
from omniimage.vocabulary import Vocabulary


def padded(ids: int) -> int:
  return -(-ids // 128) * 128


class Tables(nn.Module):
  """Two tables of vectors, one for text and specials and one for image codes."""

  text_shape: tuple[int, int]
  image_shape: tuple[int, int]
  init: Any

  def setup(self):
    self.text = self.param("text", self.init, self.text_shape, jnp.float32)
    self.image = self.param("image", self.init, self.image_shape, jnp.float32)


class PriorBlock(nn.Module):
  """Pre-norm transformer layer with a cache. What it passes on is (x_BLD, its number in the stack).

  Gemma's has a norm behind each branch, too, and most of its layers are local: their rotary base is another one.
  """

  settings: PriorSettings
  execution: Execution

  @nn.compact
  def __call__(self, x_and_number, cos_sin, mask: AttentionMask, cache_index=0, cache=None):
    s, run = self.settings, self.execution
    norm, (x_BLD, number) = functools.partial(RMSNorm, *s.norm), x_and_number
    attention = Attention(
      s.width,
      s.heads,
      s.kv_heads,
      s.head_width,
      s.qk_norm,
      s.qkv_bias,
      s.norm,
      run.dtype,
      run.kernels.attention,
      run.kernels.dot_general,
      name="attention",
    )
    if s.local_layers:
      is_global = (number + 1) % int(s.local_layers[0]) == 0
      cos_sin = jax.tree.map(lambda own, local: jnp.where(is_global, own, local), *cos_sin)
    attended_BLD, cache = attention(
      norm(name="attention_norm")(x_BLD), cos_sin, mask, cache=cache, cache_index=cache_index
    )
    attended_BLD = norm(name="attention_out_norm")(attended_BLD) if s.gemma else attended_BLD
    x_BLD = tag(x_BLD + attended_BLD, "residual")
    activation = nn.gelu if s.gemma else nn.silu
    mlp = GatedMLP(s.width, s.mlp_width, run.dtype, run.kernels.dot_general, activation, name="mlp")
    y_BLD = mlp(norm(name="mlp_norm")(x_BLD))
    y_BLD = norm(name="mlp_out_norm")(y_BLD) if s.gemma else y_BLD
    return (x_BLD + y_BLD, number + 1), cache


class Prior(nn.Module):
  settings: PriorSettings
  vocabulary: Vocabulary
  execution: Execution = Execution()

  def setup(self):
    s = self.settings
    text, image = padded(max(self.vocabulary.text_and_specials, s.text_rows)), padded(self.vocabulary.image_codes)
    # A tied head needs vectors of about unit length, else the first logits are √D wide.
    scale = s.width**-0.5 if s.tied_head else 1.0
    self.embed = Tables((text, s.width), (image, s.width), nn.initializers.normal(scale))
    self.layers = layer_stack(PriorBlock, s.depth, self.execution, settings=s)
    self.norm = RMSNorm(*s.norm)
    embedded = scale * (s.width**0.5 if s.gemma else 1.0)
    if s.input_images in READ:
      self.adapter = Adapter(s.width, embedded, self.execution.dtype)
    if s.grid_embedding:
      self.grid = GridEmbedding(s.width, embedded, self.execution.dtype)
    if not s.tied_head:
      self.head = Tables((s.width, text), (s.width, image), nn.initializers.lecun_normal())

  def __call__(
    self,
    tokens_BL: Array,
    positions_BL3: Array,
    mask: AttentionMask,
    caches=None,
    cache_index=0,
    features: InputFeatures | None = None,
  ):
    """Final normalized hidden states.

    Args:
      tokens_BL: int32 ids of the vocabulary.
      positions_BL3: of (time, row, column).
      mask: who sees whom, over (L, L) or, with caches, over (L, S).
      caches: keys and values a layer, of `init_caches`, into which these L positions are written at `cache_index`.
      features: of input images, of `adapt`, which take the place of their codes or stand beside them, as
        `prior.input_images` says; None where there are none.

    Returns:
      hidden (B, L, D) and the caches.
    """
    codes_BL, dtype = tokens_BL - self.vocabulary.codes, self.execution.dtype
    text_BLD = jnp.take(self.embed.text, jnp.minimum(tokens_BL, self.vocabulary.text_and_specials - 1), axis=0)
    image_BLD = jnp.take(self.embed.image, jnp.maximum(codes_BL, 0), axis=0)
    x_BLD = jnp.where(codes_BL[..., None] >= 0, image_BLD, text_BLD).astype(dtype)
    x_BLD = x_BLD * jnp.asarray(self.settings.width**0.5, dtype) if self.settings.gemma else x_BLD
    if features is not None:
      read_BLD = READ[self.settings.input_images](x_BLD, features.values.astype(dtype))
      x_BLD = jnp.where(features.there[..., None], read_BLD, x_BLD)
    if self.settings.grid_embedding:
      x_BLD = jnp.where(codes_BL[..., None] >= 0, x_BLD + self.grid(positions_BL3), x_BLD)
    first = (x_BLD, jnp.int32(0))
    (x_BLD, _), caches = apply_layers(self.layers, first, self._rotary(positions_BL3), mask, cache_index, caches=caches)
    return self.norm(x_BLD), caches

  def _rotary(self, positions_BL3: Array):
    """cos_sin of all layers, or, where some are local, of the global and of the local ones."""
    s = self.settings
    cos_sin = rotary(positions_BL3, s.head_width, s.rope_theta, s.rope_scaling)
    return (cos_sin, rotary(positions_BL3, s.head_width, s.local_layers[1])) if s.local_layers else cos_sin

  def adapt(self, states: Array) -> Array:
    """The image tokenizer's encoder states (..., E) → features (..., D). Not where `prior.input_images` is "codes"."""
    return self.adapter(states)

  def head_kernel(self, kind: str) -> Array:
    """Output matrix (D, padded V) of "text" (with specials) or "image"."""
    if self.settings.tied_head:
      return getattr(self.embed, kind).T
    return getattr(self.head, kind)

  def logits(self, hidden: Array, kind: str) -> Array:
    """(..., D) → float32 logits (..., V) over the ids of one kind, padding cut off."""
    ids = self.vocabulary.text_and_specials if kind == "text" else self.vocabulary.image_codes
    kernel_DV = self.head_kernel(kind).astype(self.execution.dtype)
    return jnp.matmul(hidden, kernel_DV, preferred_element_type=jnp.float32)[..., :ids]

  def init_parameters(self, tokens_BL: Array, positions_BL3: Array, states: Array | None = None):
    """Touches every parameter, for `init`; `states` as of `adapt`, which only a prior with an adapter asks for."""
    hidden_BLD, _ = self(tokens_BL, positions_BL3, AttentionMask())
    if self.settings.input_images in READ:
      self.adapt(states)
    return self.head_kernel("text"), self.head_kernel("image"), hidden_BLD

  def init_caches(self, batch: int, length: int) -> tuple[Cache, ...]:
    """Empty keys and values of every layer, for `length` places."""
    s = self.settings
    return tuple(blank_cache(batch, length, s.kv_heads, s.head_width, self.execution.dtype) for _ in range(s.depth))
