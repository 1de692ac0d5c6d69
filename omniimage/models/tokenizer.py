"""The image tokenizer: ViT encoder (Dosovitskiy et al. 2021) → quantizer → ViT decoder.

Positions are rotary only, so one tokenizer reads images of any size. Axes: N patches, P pixels of a patch, D width,
Z quantizer channels, h × w token grid.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from omniimage.models.attention import Attention, AttentionMask
from omniimage.models.execution import Execution, apply_layers, layer_stack
from omniimage.models.layers import GatedMLP, RMSNorm, grid_positions, patchify, rotary, unpatchify
from omniimage.models.quantizers import Quantized, Quantizer
from omniimage.settings import TokenizerSettings

IMAGE_ROPE_THETA = 100.0  # image grids are tens of places wide, not thousands


class TokenizerBlock(nn.Module):
  """Pre-norm transformer layer that sees the whole image."""

  settings: TokenizerSettings
  execution: Execution

  @nn.compact
  def __call__(self, x: Array, cos_sin):
    s, run = self.settings, self.execution
    attention = Attention(
      s.width, s.heads, s.heads, s.width // s.heads,
      dtype=run.dtype, attention_fn=run.attention_fn, name="attention",
    )  # fmt: skip
    x = x + attention(RMSNorm(name="attention_norm")(x), cos_sin, AttentionMask())[0]
    return x + GatedMLP(s.width, s.mlp_width, run.dtype, name="mlp")(RMSNorm(name="mlp_norm")(x)), None


class Trunk(nn.Module):
  """Input projection → layers → norm → output projection, over a grid of places."""

  settings: TokenizerSettings
  depth: int
  names: tuple[str, str]  # of the two projections
  outputs: int
  execution: Execution

  @nn.compact
  def __call__(self, x: Array, rows: int, columns: int) -> Array:
    s, dtype = self.settings, self.execution.dtype
    x = nn.Dense(s.width, dtype=dtype, name=self.names[0])(x)
    cos_sin = rotary(grid_positions(rows, columns)[None], s.width // s.heads, IMAGE_ROPE_THETA)
    layers = layer_stack(TokenizerBlock, self.depth, self.execution, settings=s)
    x, _ = apply_layers(layers, x, cos_sin)
    x = RMSNorm(name="norm")(x)
    return nn.Dense(self.outputs, dtype=dtype, name=self.names[1])(x).astype(jnp.float32)


class ImageTokenizer(nn.Module):
  settings: TokenizerSettings
  quantizer: Quantizer
  execution: Execution = Execution()

  def setup(self):
    s = self.settings
    self.encoder = Trunk(s, s.encoder_depth, ("patches", "codes"), self.quantizer.channels, self.execution)
    self.decoder = Trunk(s, s.decoder_depth, ("codes", "pixels"), 3 * s.patch_size**2, self.execution)

  def encode(self, images: Array) -> Quantized:
    """Images (B, H, W, 3) in [-1, 1] → features (B, h, w, Z), codes (B, h, w) and, if any, auxiliary loss (B, h, w)."""
    B, H, W, _ = images.shape
    rows, columns = H // self.settings.patch_size, W // self.settings.patch_size
    z = self.encoder(patchify(images, self.settings.patch_size), rows, columns)
    return self.quantizer(z.reshape(B, rows, columns, -1))

  def features(self, codes: Array) -> Array:
    """Codes (...) → features (..., Z)."""
    return self.quantizer.features(codes)

  def decode(self, features: Array) -> Array:
    """Features (B, h, w, Z) → images (B, H, W, 3) in [-1, 1], up to what the loss has taught."""
    B, rows, columns, Z = features.shape
    patches = self.decoder(features.reshape(B, rows * columns, Z), rows, columns)
    return unpatchify(patches, self.settings.patch_size, columns)

  def __call__(self, images: Array) -> Array:
    """Reconstruction of images (B, H, W, 3)."""
    return self.decode(self.encode(images).features)
