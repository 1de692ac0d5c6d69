"""A denoiser over the whole canvas: patches of pixels or of latents, each at one time, conditioned on text.

The blocks are those of our painter: self-attention, cross-attention to the states of the text, gated MLP, modulated by
time through one shared modulation with a table a layer, as in PixArt-α (Chen et al. 2023, arXiv 2310.00426). It
predicts the clean patches x̂ (JiT, Li & He 2025, 2511.13720).

Axes: B images, N patches of the canvas, C numbers of a patch, D width, S text states, M memory (text states, one null).
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from omniimage.models.attention import AttentionMask, as_cache
from omniimage.models.diffusion_decoder import DiffusionBlock, Memory, TimeEmbedding, modulate
from omniimage.models.execution import Execution, apply_layers, layer_stack
from omniimage.models.layers import RMSNorm, grid_positions, rotary, small_init
from omniimage.models.tokenizer import IMAGE_ROPE_THETA
from omniimage.settings import DecoderSettings


class Denoiser(nn.Module):
  settings: DecoderSettings
  channels: int  # C
  execution: Execution = Execution()

  def setup(self):
    s, dtype = self.settings, self.execution.dtype
    self.patches = nn.Dense(s.width, dtype=dtype)
    self.text = nn.Dense(s.width, dtype=dtype)
    self.null_text = self.param("null_text", nn.initializers.normal(1.0), (s.width,), jnp.float32)
    self.time = TimeEmbedding(s.width, dtype)
    self.modulation = nn.Dense(6 * s.width, kernel_init=nn.initializers.zeros)
    self.layers = layer_stack(DiffusionBlock, s.depth, self.execution, settings=s)
    self.norm = RMSNorm()
    self.final_modulation = nn.Dense(2 * s.width, kernel_init=nn.initializers.zeros)
    self.pixels = nn.Dense(self.channels, kernel_init=small_init)

  def remember(self, text_BSE: Array, there_BS: Array, keep_text: Array) -> Memory:
    """What is attended to.

    Args:
      text_BSE: states of the text.
      there_BS: which of them exist, bool.
      keep_text: (B,) bool; False leaves the text out, for guidance.
    """
    text = self.text(text_BSE)
    null = jnp.broadcast_to(self.null_text.astype(text.dtype), (text.shape[0], 1, text.shape[-1]))
    seen = jnp.concatenate([there_BS & keep_text[:, None], jnp.ones((text.shape[0], 1), bool)], axis=1)
    return Memory(None, jnp.concatenate([text, null], axis=1), seen.astype(jnp.int32))

  def __call__(self, patches_BNC: Array, columns: int, t: Array, memory: Memory, kept=None) -> Array:
    """x̂ (B, N, C) float32 of noisy patches.

    Args:
      columns: of the canvas's patches.
      t: (B,) times, 0 noise and 1 clean.
      memory: of `remember`.
      kept: of `memory_caches`, in sampling, where the layers are unstacked.
    """
    s, (B, N, _) = self.settings, patches_BNC.shape
    time = self.time(t[:, None])
    modulation = self.modulation(time).reshape(B, 1, 6, s.width)
    rotations = self._rotations(N // columns, columns, memory)
    x_BND = self.patches(patches_BNC)
    x_BND, _ = apply_layers(self.layers, x_BND, modulation, rotations, AttentionMask(), memory, 0, caches=kept)
    scale, shift = jnp.split(self.final_modulation(time), 2, axis=-1)
    return self.pixels(modulate(self.norm(x_BND).astype(jnp.float32), scale, shift))

  def memory_caches(self, memory: Memory) -> tuple:
    """What each layer makes of the memory, whatever the patches and the time."""
    _, cos_sin = self._rotations(1, 1, memory)
    return tuple((None, as_cache(*layer.memory_keys_values(memory.states, cos_sin))) for layer in self.layers)

  def _rotations(self, rows: int, columns: int, memory: Memory):
    """Rotary tables of the patches, in units of patches, and of the memory, which is at the origin."""
    head_width = self.settings.width // self.settings.heads
    origin = jnp.zeros((memory.states.shape[1], 2), jnp.float32)
    places = (grid_positions(rows, columns), origin)
    return tuple(rotary(positions[None], head_width, IMAGE_ROPE_THETA) for positions in places)

  def init_parameters(self, patches_BNC: Array, text_BSE: Array) -> Array:
    """Touches every parameter, for `init`."""
    B, S, _ = text_BSE.shape
    memory = self.remember(text_BSE, jnp.ones((B, S), bool), jnp.ones((B,), bool))
    return self(patches_BNC, 1, jnp.zeros((B,)), memory)
