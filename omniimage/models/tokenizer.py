"""The image tokenizer: ViT encoder (Dosovitskiy et al. 2021) → FSQ → ViT decoder.

Positions are rotary only, so one tokenizer reads images of any size. Axes: N patches, P pixels of a patch, D width,
Z quantizer channels, h × w token grid.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from omniimage.models.attention import Attention, AttentionFn, AttentionMask, dot_product_attention
from omniimage.models.layers import (
  GatedMLP,
  RMSNorm,
  apply_layers,
  grid_positions,
  layer_stack,
  patchify,
  rotary,
  unpatchify,
)
from omniimage.models.quantizers import FSQ
from omniimage.settings import TokenizerSettings

IMAGE_ROPE_THETA = 100.0  # image grids are tens of places wide, not thousands


class Block(nn.Module):
  """Pre-norm transformer layer that sees the whole image."""

  width: int
  heads: int
  mlp_width: int
  dtype: Any = jnp.float32
  attention_fn: AttentionFn = dot_product_attention

  @nn.compact
  def __call__(self, x: Array, cos_sin):
    attention = Attention(
      self.width, self.heads, self.heads, self.width // self.heads,
      dtype=self.dtype, attention_fn=self.attention_fn, name="attention",
    )  # fmt: skip
    x = x + attention(RMSNorm(name="attention_norm")(x), cos_sin, AttentionMask())[0]
    return x + GatedMLP(self.width, self.mlp_width, self.dtype, name="mlp")(RMSNorm(name="mlp_norm")(x)), None


class Trunk(nn.Module):
  """Input projection → layers → norm → output projection, over a grid of places."""

  settings: TokenizerSettings
  depth: int
  names: tuple[str, str]  # of the two projections
  outputs: int
  scan: bool
  remat: str
  dtype: Any
  attention_fn: AttentionFn
  gather_params: Any

  @nn.compact
  def __call__(self, x: Array, rows: int, columns: int) -> Array:
    s = self.settings
    x = nn.Dense(s.width, dtype=self.dtype, name=self.names[0])(x)
    cos_sin = rotary(grid_positions(rows, columns)[None], s.width // s.heads, IMAGE_ROPE_THETA)
    layers = layer_stack(
      Block, self.depth, scan=self.scan, remat=self.remat, gather_params=self.gather_params,
      width=s.width, heads=s.heads, mlp_width=s.mlp_width, dtype=self.dtype, attention_fn=self.attention_fn,
    )  # fmt: skip
    x, _ = apply_layers(layers, x, cos_sin)
    x = RMSNorm(name="norm")(x)
    return nn.Dense(self.outputs, dtype=self.dtype, name=self.names[1])(x).astype(jnp.float32)


class ImageTokenizer(nn.Module):
  settings: TokenizerSettings
  scan: bool = True
  remat: str = "none"
  dtype: Any = jnp.float32
  attention_fn: AttentionFn = dot_product_attention
  gather_params: Any = None

  def setup(self):
    s = self.settings
    self.quantizer = FSQ(s.levels)
    shared = (self.scan, self.remat, self.dtype, self.attention_fn, self.gather_params)
    self.encoder = Trunk(s, s.encoder_depth, ("patches", "codes"), len(s.levels), *shared)
    self.decoder = Trunk(s, s.decoder_depth, ("codes", "pixels"), 3 * s.patch_size**2, *shared)

  def encode(self, images: Array) -> tuple[Array, Array]:
    """Images (B, H, W, 3) in [-1, 1] → features (B, h, w, Z), straight-through, and codes (B, h, w) int32."""
    B, H, W, _ = images.shape
    rows, columns = H // self.settings.patch_size, W // self.settings.patch_size
    z = self.encoder(patchify(images, self.settings.patch_size), rows, columns)
    return self.quantizer.quantize(z.reshape(B, rows, columns, -1))

  def decode(self, features: Array) -> Array:
    """Features (B, h, w, Z) → images (B, H, W, 3) in [-1, 1], up to what the loss has taught."""
    B, rows, columns, Z = features.shape
    patches = self.decoder(features.reshape(B, rows * columns, Z), rows, columns)
    return unpatchify(patches, self.settings.patch_size, columns)

  def __call__(self, images: Array) -> Array:
    """Reconstruction of images (B, H, W, 3)."""
    return self.decode(self.encode(images)[0])
