"""A drawing as it comes into being: after each visual token, and after each chunk.

Nothing is ever revised, neither a code that the prior has written nor a chunk that the decoder has finished; so the
steps of a drawing can be shown once it is done.
"""

import jax
import jax.numpy as jnp
from jax import Array

from omniimage.models.layers import patchify, unpatchify
from omniimage.sampling.generate import Drawing, Generator

GRAY = 0.0  # what is still to come, in [-1, 1]

# Axes: N visual tokens, C chunks, h × w token grid, H × W pixels.


def token_frames(generator: Generator, drawing: Drawing, index: int = 0) -> Array:
  """(N + 1, H, W, 3): the tokenizer's rendering of the first 0, 1, … N codes of one drawing, in the order written.

  The tokenizer is given zeros for the codes that are missing, and their places are left gray.
  """
  omni = generator.omni
  patch_size = omni.settings.tokenizer.patch_size

  @jax.jit
  def render(params, codes):
    h, w = codes.shape
    written = jnp.arange(h * w) < jnp.arange(h * w + 1)[:, None]
    features = jnp.where(written.reshape(-1, h, w, 1), omni.features(params, codes), 0.0)
    patches = patchify(jnp.clip(omni.render(params, features), -1, 1), patch_size)
    return unpatchify(jnp.where(written[..., None], patches, GRAY), patch_size, w)

  return render(generator.params, drawing.codes[index])


def chunk_frames(generator: Generator, drawing: Drawing, index: int = 0) -> Array:
  """(C + 1, H, W, 3): the canvas of one drawing after 0, 1, … C chunks."""
  settings, image = generator.omni.settings, drawing.images[index]
  layout = generator.omni.layout(settings.sampling.chunk_rows)
  rows = jnp.repeat(layout.chunk_of_row, settings.decoder.patch_size)
  finished = rows < jnp.arange(layout.count + 1)[:, None]
  return jnp.where(finished[:, :, None, None], image, GRAY)
