"""A bidirectional transformer over text, which learns with what reads its states: every word has seen the whole text.

Its layers are the prior's. Imagen (Saharia et al. 2022, arXiv 2205.11487) and PixArt-α (Chen et al. 2023, 2310.00426)
read the states of such an encoder that was trained before, on text alone.

Axes: B texts, S tokens, D width.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from omniimage.models.attention import AttentionMask, Full
from omniimage.models.execution import Execution, apply_layers, layer_stack
from omniimage.models.layers import RMSNorm, rotary
from omniimage.models.prior import PriorBlock, padded
from omniimage.settings import PriorSettings


class TextEncoder(nn.Module):
  settings: PriorSettings
  text_size: int  # ids of the text vocabulary
  execution: Execution = Execution()

  @nn.compact
  def __call__(self, tokens_BS: Array, there_BS: Array) -> Array:
    """Final normalized states (B, S, D) of text ids, of which some exist (B, S) bool."""
    s = self.settings
    embed = self.param("embed", nn.initializers.normal(1.0), (padded(self.text_size), s.width), jnp.float32)
    x_BSD = jnp.take(embed, jnp.where(there_BS, tokens_BS, 0), axis=0).astype(self.execution.dtype)
    seen = there_BS.astype(jnp.int32)
    positions = jnp.arange(x_BSD.shape[1], dtype=jnp.float32)[None, :, None]
    layers = layer_stack(PriorBlock, s.depth, self.execution, settings=s)
    cos_sin = rotary(positions, s.head_width, s.rope_theta, s.rope_scaling)
    (x_BSD, _), _ = apply_layers(layers, (x_BSD, jnp.int32(0)), cos_sin, AttentionMask(Full(), seen, seen))
    return RMSNorm(*s.norm, name="norm")(x_BSD)
