"""Painting: each chunk from noise, step by step, finished chunks kept as keys and values.

Axes: B images, K guidance branches, N patches of the canvas, T patches of a chunk, P pixels of a patch, h × w visual
tokens, Z their channels, S text states, L tokens of a prompt, D prior width.
"""

import flax
import jax
import jax.numpy as jnp
from jax import Array

from omniimage.models.attention import AttentionMask, Full
from omniimage.models.chunks import ChunkLayout
from omniimage.models.diffusion_decoder import Memory
from omniimage.models.layers import unpatchify
from omniimage.models.omni import Omni, Params
from omniimage.sampling.guidance import asked_for, coefficients_at, guided, kept_by, repeated
from omniimage.sampling.kept import Kept
from omniimage.sampling.solvers import Predict, walk
from omniimage.settings import SamplingSettings
from omniimage.size import Size
from omniimage.streams import Stream, fold


def branches(sampling: SamplingSettings) -> list[tuple[bool, bool, float]]:
  """(keep tokens, keep text, coefficient) of each forward pass of guided painting, as in InstructPix2Pix (Brooks et al.
  2023): x̂ = x̂(∅,∅) + text·(x̂(∅,text) − x̂(∅,∅)) + token·(x̂(tokens,text) − x̂(∅,text)). Without guidance, one
  pass."""
  text, token = sampling.text_guidance, sampling.token_guidance
  return asked_for([(True, True, token), (False, True, text - token), (False, False, 1 - text)], sampling)


@flax.struct.dataclass
class Canvas:
  """A picture under way, K·B of each: one a guidance branch.

  Attributes:
    memory: what it is painted from.
    caches: keys and values of the memory and, in the places of a window, of the last finished chunks and the present
      one; chunks that nothing sees any more have left it.
    layout: how it is divided into chunks.
  """

  memory: Memory
  caches: tuple
  layout: ChunkLayout = flax.struct.field(pytree_node=False)

  def place(self, chunk: int, size: Size) -> tuple[int, int]:
    """Top and left of a chunk, in pixels of a picture of a size."""
    row, column = self.layout.corner(chunk)
    return row * size.pixels[0] // self.layout.rows, column * size.pixels[1] // self.layout.columns


def paint(
  omni: Omni,
  params: Params,
  features: Array,
  text_states: Array,
  text_mask: Array,
  keys: Array,
  sampling: SamplingSettings,
  kept: Kept | None = None,
) -> Array:
  """Images (B, H, W, 3) in [-1, 1] from visual tokens and text, whole. Arguments as of `blank` and `paint_chunk`."""
  canvas = blank(omni, params, features, text_states, text_mask, sampling)

  def step(caches, chunk):
    following, patches = paint_chunk(omni, params, canvas.replace(caches=caches), chunk, keys, sampling, kept)
    return following.caches, patches

  layout = canvas.layout
  _, patches = jax.lax.scan(step, canvas.caches, jnp.arange(layout.count))
  patches = jnp.moveaxis(patches, 0, 1).reshape(features.shape[0], -1, patches.shape[-1])
  return unpatchify(layout.raster(patches), omni.settings.decoder.patch_size, layout.columns)


def blank(
  omni: Omni,
  params: Params,
  features: Array,
  text_states: Array,
  text_mask: Array,
  sampling: SamplingSettings,
) -> Canvas:
  """A canvas of which nothing is painted.

  Args:
    params: unstacked.
    features: (B, h, w, Z) quantized features.
    text_states, text_mask: (B, S, D) and (B, S), of `Omni.text_states`.
  """
  B, passes = features.shape[0], branches(sampling)
  variables = {"params": params["decoder"]}
  keep_tokens, keep_text = (kept_by(passes, B, condition) for condition in (0, 1))
  conditions = repeated(len(passes), features, text_states, text_mask)
  layout = omni.layout(*features.shape[1:3], sampling.chunk_rows, 0, sampling.chunk_columns)
  memory = omni.decoder.apply(variables, *conditions, keep_tokens, keep_text, layout, method="remember")
  window = layout.window(omni.settings.decoder.context_rows)
  return Canvas(memory, omni.decoder.apply(variables, memory, layout, window, method="init_caches"), layout)


def paint_chunk(
  omni: Omni,
  params: Params,
  canvas: Canvas,
  chunk: Array,
  keys: Array,
  sampling: SamplingSettings,
  kept: Kept | None = None,
) -> tuple[Canvas, Array]:
  """Paints the next chunk of a canvas, all before it being finished.

  Args:
    params: unstacked.
    chunk: scalar int, its number.
    keys: (B,) random keys, one an image.
    sampling: a chunk is painted in `diffusion_steps` steps of the `solver`.
    kept: patches that stay as they are.

  Returns:
    The canvas, and the chunk's finished patches (B, T, P).
  """
  canvas, predict, noise = begun_chunk(omni, params, canvas, chunk, keys, sampling, kept)
  finished, caches = walk(predict, noise, sampling.diffusion_steps, sampling.solver, sampling.time_shift, canvas.caches)
  _, caches = predict(finished, 1.0, caches)
  return canvas.replace(caches=caches), finished


def begun_chunk(
  omni: Omni,
  params: Params,
  canvas: Canvas,
  chunk: Array,
  keys: Array,
  sampling: SamplingSettings,
  kept: Kept | None = None,
) -> tuple[Canvas, Predict, Array]:
  """The canvas with room for a chunk, what the painter predicts of it, and the noise (B, T, P) it begins as; arguments
  as of `paint_chunk`."""
  s, layout = omni.settings.decoder, canvas.layout
  B, N, window = keys.shape[0], layout.rows * layout.columns, layout.window(s.context_rows)
  T, P, groups = N // layout.count, 3 * s.patch_size**2, layout.groups // layout.count
  passes = branches(sampling)
  K = len(passes)
  first_visible = jnp.asarray([layout.first_visible_row(chunk, s.context_rows) for chunk in range(layout.count)])
  left = jnp.maximum((chunk + 1) * T - window, 0)  # patches that have left the window
  if window < N:
    canvas = canvas.replace(caches=moved_on(canvas.caches, jnp.where(left > 0, T, 0)))
  row_of_place = jax.lax.dynamic_slice_in_dim(jnp.asarray(layout.row_of_patch), left, window)
  painted_of_place = left + jnp.arange(window) < (chunk + 1) * T

  def predict(x, t, caches, gap=None):
    """x̂, guided, and the caches with the chunk's own keys and values in them."""
    visible = (row_of_place >= first_visible[chunk]) & painted_of_place
    visible = jnp.broadcast_to(visible.astype(jnp.int32), (K * B, window))
    mask = AttentionMask(Full(), jnp.ones((K * B, T), jnp.int32), visible)
    (noisy,) = repeated(K, x)
    predicted, caches = omni.decoder.apply(
      {"params": params["decoder"]}, noisy, ((chunk * groups, groups),), jnp.full((K * B, groups), t),
      canvas.memory, mask, layout, caches, chunk * T - left,
      gap=None if gap is None else jnp.full((K * B, groups), gap),
    )  # fmt: skip
    predicted = guided(coefficients_at(t, passes, sampling), predicted)
    return predicted if kept is None else jnp.where(own(kept.stays)[..., None], own(kept.patches), predicted), caches

  def own(of_canvas):
    """(B, N, …) → (B, T, …), of the chunk."""
    return jax.lax.dynamic_slice_in_dim(layout.ordered(of_canvas), chunk * T, T, axis=1)

  noise = jax.vmap(lambda key: jax.random.normal(fold(key, Stream.CHUNKS, chunk), (T, P), jnp.float32))(keys)
  return canvas, predict, noise


def moved_on(caches: tuple, places: Array) -> tuple:
  """The caches with what their first so many places held gone, and as many free at the end."""

  def of_layer(own, of_memory):
    return tuple(jnp.roll(x_BGSK, -places, axis=2) for x_BGSK in own), of_memory

  return tuple(of_layer(*layer) for layer in caches)


def text_conditions(omni: Omni, hidden: Array, tokens: Array, lengths: Array) -> tuple[Array, Array]:
  """The text states, and which of them exist, of images that follow prompts (B, L) of these lengths (B,) at once, whose
  states are `hidden` (B, L, D)."""
  exists = (jnp.arange(tokens.shape[1]) < lengths[:, None]).astype(jnp.int32)
  states, there = omni.text_states(hidden, tokens, exists, lengths[:, None] - 1)
  return states[:, 0], there[:, 0]
