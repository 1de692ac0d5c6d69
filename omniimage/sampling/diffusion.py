"""Painting: each chunk from noise by Euler steps, finished chunks kept as keys and values.

Axes: B images, K guidance branches, N patches of the canvas, T patches of a chunk, P pixels of a patch, h × w visual
tokens, Z their channels, S text states.
"""

import jax
import jax.numpy as jnp
from jax import Array

from omniimage.models.attention import AttentionMask, Full
from omniimage.models.flow import velocity
from omniimage.models.layers import unpatchify
from omniimage.models.omni import Omni, Params
from omniimage.settings import SamplingSettings
from omniimage.streams import Stream, fold


def branches(sampling: SamplingSettings) -> list[tuple[bool, bool, float]]:
  """(keep tokens, keep text, coefficient) of each forward pass of guided painting, as in InstructPix2Pix (Brooks et al.
  2023): x̂ = x̂(∅,∅) + text·(x̂(∅,text) − x̂(∅,∅)) + token·(x̂(tokens,text) − x̂(∅,text)). Without guidance, one
  pass."""
  text, token = sampling.text_guidance, sampling.token_guidance
  every = [(True, True, token), (False, True, text - token), (False, False, 1 - text)]
  return [branch for branch in every if branch[2] != 0]


def paint(
  omni: Omni,
  params: Params,
  features: Array,
  text_states: Array,
  text_mask: Array,
  keys: Array,
  sampling: SamplingSettings,
) -> Array:
  """Images (B, H, W, 3) in [-1, 1] from visual tokens and text.

  Args:
    params: unstacked.
    features: (B, h, w, Z) quantized features.
    text_states, text_mask: (B, S, D) and (B, S), of `Omni.text_states`.
    keys: (B,) random keys, one an image.
    sampling: `chunk_rows` patch rows are painted at a time, in `diffusion_steps` Euler steps.
  """
  s, layout = omni.settings.decoder, omni.layout(sampling.chunk_rows)
  B, rows = features.shape[0], layout.rows // layout.count
  T, P = rows * layout.columns, 3 * s.patch_size**2
  passes = branches(sampling)
  K = len(passes)
  variables = {"params": params["decoder"]}

  def repeated(x):
    return jnp.tile(x, (K,) + (1,) * (x.ndim - 1))

  keep_tokens, keep_text = (jnp.repeat(jnp.asarray([branch[i] for branch in passes]), B) for i in (0, 1))
  memory = omni.decoder.apply(
    variables, *map(repeated, (features, text_states, text_mask)), keep_tokens, keep_text, method="remember"
  )
  caches = omni.decoder.apply(variables, memory, layout.columns, method="init_caches")
  first_visible = jnp.asarray([layout.first_visible_row(chunk, s.context_rows) for chunk in range(layout.count)])
  row_of_patch = jnp.arange(layout.rows * layout.columns) // layout.columns

  def predict(chunk, x, t, caches):
    """x̂ of each branch and the caches, the chunk's own keys and values in them."""
    visible = (row_of_patch >= first_visible[chunk]) & (row_of_patch < (chunk + 1) * rows)
    visible = jnp.broadcast_to(visible.astype(jnp.int32), (K * B, len(row_of_patch)))
    mask = AttentionMask(Full(), jnp.ones((K * B, T), jnp.int32), visible)
    predicted, caches = omni.decoder.apply(
      variables, repeated(x), ((chunk * rows, rows),), jnp.full((K * B, rows), t), memory, mask, layout.columns,
      caches, chunk * T,
    )  # fmt: skip
    guided = sum(branch[2] * part for branch, part in zip(passes, jnp.split(predicted, K)))
    return guided, caches

  def paint_chunk(caches, chunk):
    def euler(carry, i):
      x, caches = carry
      t = i / sampling.diffusion_steps
      predicted, caches = predict(chunk, x, t, caches)
      following = x + velocity(predicted, x, t) / sampling.diffusion_steps
      return (jnp.where(i == sampling.diffusion_steps - 1, predicted, following), caches), None

    noise = jax.vmap(lambda key: jax.random.normal(fold(key, Stream.CHUNKS, chunk), (T, P)))(keys)
    (finished, caches), _ = jax.lax.scan(euler, (noise, caches), jnp.arange(sampling.diffusion_steps))
    _, caches = predict(chunk, finished, 1.0, caches)
    return caches, finished

  _, patches = jax.lax.scan(paint_chunk, caches, jnp.arange(layout.count))
  return unpatchify(jnp.moveaxis(patches, 0, 1).reshape(B, -1, P), s.patch_size, layout.columns)
