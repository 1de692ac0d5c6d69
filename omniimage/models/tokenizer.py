"""The image tokenizer: ViT encoder (Dosovitskiy et al. 2021) → quantizer → ViT decoder.

Positions are rotary only, so one tokenizer reads images of any size.

Axes: B images, H × W pixels, N patches, P pixels of a patch, D width, Z quantizer channels, h × w token grid, which is
the grid of patches.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from omniimage.models.attention import Attention, AttentionMask
from omniimage.models.execution import Execution, apply_layers, layer_stack
from omniimage.models.layers import GatedMLP, RMSNorm, grid_positions, patchify, rotary, unpatchify
from omniimage.models.quantizers import Quantizer
from omniimage.settings.parts import EncoderSettings, TrunkSettings

IMAGE_ROPE_THETA = 100.0  # image grids are tens of places wide, not thousands


class TokenizerBlock(nn.Module):
  """Pre-norm transformer layer that sees the whole image."""

  settings: EncoderSettings
  execution: Execution

  @nn.compact
  def __call__(self, x_BND: Array, cos_sin):
    s, run = self.settings, self.execution
    attention = Attention(
      s.width, s.heads, s.heads, s.width // s.heads,
      dtype=run.dtype, attention_fn=run.kernels.attention, dot_general=run.kernels.dot_general, name="attention",
    )  # fmt: skip
    x_BND = x_BND + attention(RMSNorm(name="attention_norm")(x_BND), cos_sin, AttentionMask())[0]
    mlp = GatedMLP(s.width, s.mlp_width, run.dtype, run.kernels.dot_general, name="mlp")
    return x_BND + mlp(RMSNorm(name="mlp_norm")(x_BND)), None


class Trunk(nn.Module):
  """Input projection → layers → norm → output projection, over a grid of places: the encoder, and the decoder."""

  settings: EncoderSettings
  depth: int
  names: tuple[str, str]  # of the two projections
  outputs: int
  execution: Execution

  @nn.compact
  def __call__(self, places: Array, rows: int, columns: int) -> tuple[Array, Array]:
    """(B, N, channels in) → (B, N, outputs) float32, and the normalized states (B, N, D) they are projected from."""
    s, dtype = self.settings, self.execution.dtype
    x_BND = nn.Dense(s.width, dtype=dtype, name=self.names[0])(places)
    cos_sin = rotary(grid_positions(rows, columns)[None], s.width // s.heads, IMAGE_ROPE_THETA)
    layers = layer_stack(TokenizerBlock, self.depth, self.execution, settings=s)
    x_BND, _ = apply_layers(layers, x_BND, cos_sin)
    x_BND = RMSNorm(name="norm")(x_BND)
    return nn.Dense(self.outputs, dtype=dtype, name=self.names[1])(x_BND).astype(jnp.float32), x_BND


class EncodedImages(NamedTuple):
  """Images as they were encoded. All but the states are the quantizer's, `Quantized`.

  Attributes:
    features: (..., h, w, Z) float32.
    codes: (..., h, w) int32, or None.
    auxiliary: (..., h, w) float32, or None.
    states: (..., h, w, D), the encoder's, normalized, of which Z channels were made and quantized.
    affinity: (..., h, w, C) float32, or None.
  """

  features: Array
  codes: Array | None
  auxiliary: Array | None
  states: Array
  affinity: Array | None


class ImageTokenizer(nn.Module):
  """Its decoder only renders features again; what paints is `omniimage.models.diffusion_decoder`."""

  settings: TrunkSettings
  quantizer: Quantizer
  execution: Execution = Execution()

  def setup(self):
    s = self.settings
    self.encoder = Trunk(s, s.encoder_depth, ("patches", "codes"), self.quantizer.channels, self.execution)
    self.decoder = Trunk(s, s.decoder_depth, ("codes", "pixels"), 3 * s.patch_size**2, self.execution)

  def encode(self, images_BHW3: Array) -> EncodedImages:
    """Images in [-1, 1] → h × w visual tokens of each."""
    B, H, W, _ = images_BHW3.shape
    h, w = H // self.settings.patch_size, W // self.settings.patch_size
    z_BNZ, states_BND = self.encoder(patchify(images_BHW3, self.settings.patch_size), h, w)
    q = self.quantizer(z_BNZ.reshape(B, h, w, -1))
    return EncodedImages(q.features, q.codes, q.auxiliary, states_BND.reshape(B, h, w, -1), q.affinity)

  def features(self, codes: Array) -> Array:
    """Codes (...) → features (..., Z)."""
    return self.quantizer.features(codes)

  def decode(self, features_BhwZ: Array) -> Array:
    """Features → images (B, H, W, 3) in [-1, 1], up to what the loss has taught."""
    B, h, w, Z = features_BhwZ.shape
    patches_BNP, _ = self.decoder(features_BhwZ.reshape(B, h * w, Z), h, w)
    return unpatchify(patches_BNP, self.settings.patch_size, w)

  def __call__(self, images_BHW3: Array) -> Array:
    """Reconstruction (B, H, W, 3)."""
    return self.decode(self.encode(images_BHW3).features)
