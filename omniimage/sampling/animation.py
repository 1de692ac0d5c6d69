"""A picture coming about, frame by frame: its visual tokens row by row, then each chunk out of its noise.

Axes: B = 1 picture, C chunks, K steps, T patches of a chunk, P pixels of a patch, h × w visual tokens, H × W pixels.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from omniimage.models.layers import unpatchify
from omniimage.models.omni import Omni, Params
from omniimage.sampling.autoregressive import prefill
from omniimage.sampling.diffusion import begun_chunk, blank, text_conditions
from omniimage.sampling.drawing import row_keys
from omniimage.sampling.events import Chunk, to_uint8
from omniimage.sampling.generate import Generator
from omniimage.sampling.kernels import compiled
from omniimage.sampling.solvers import walk
from omniimage.settings import SamplingSettings


def frames(generator: Generator, prompt: str, seed: int = 0, **changes) -> Iterator[tuple[str, np.ndarray]]:
  """What is shown, (H, W, 3) uint8, and what of: "tokens" or "painting". The last one is the drawing that
  `generator([prompt], seed, **changes)` gives."""
  sampling = generator.sampling(changes)
  drawing = generator([prompt], seed, **changes)
  codes, size = np.asarray(drawing.codes)[0], generator.settings.buckets[0]
  enlarge = size.pixels[0] // drawing.rendering.shape[1]

  def shown(pixels: np.ndarray) -> np.ndarray:
    return to_uint8(pixels.repeat(enlarge, axis=0).repeat(enlarge, axis=1))

  for row in range(size.rows + 1):
    yield "tokens", shown(generator.preview(codes.ravel()[: row * size.columns]))
  canvas = shown(np.asarray(drawing.rendering)[0])
  tokens, lengths = generator.prompt_tokens([prompt])
  paint = compiled(functools.partial(noisy_chunks, generator.omni), static_argnames="sampling")
  noisy = np.asarray(paint(generator.params, tokens, lengths, drawing.codes, row_keys(seed, 1), sampling=sampling))
  layout = generator.omni.layout(size.rows, size.columns, sampling.chunk_rows, 0, sampling.chunk_columns)
  side = generator.settings.decoder.patch_size
  for chunk, steps in enumerate(noisy):
    top, left = (side * place for place in layout.corner(chunk))
    for patches in steps:
      pixels = to_uint8(np.asarray(unpatchify(patches[0], side, layout.width)))
      canvas = canvas.copy()
      Chunk(pixels, (top, left), size.pixels).put_on(canvas)
      yield "painting", canvas


def noisy_chunks(
  omni: Omni, params: Params, tokens: Array, lengths: Array, codes: Array, keys: Array, *, sampling: SamplingSettings
) -> Array:
  """(C, K + 1, B, T, P): each chunk as it was at every time that the painter was asked, and as it ended; arguments as
  of `omniimage.sampling.generate.repaint`."""
  _, hidden = prefill(omni, params, tokens, lengths, 0)
  canvas = blank(omni, params, omni.features(params, codes), *text_conditions(omni, hidden, tokens, lengths), sampling)
  asked = sampling.diffusion_steps * 2 - 1 if sampling.solver == "heun" else sampling.diffusion_steps

  def step(caches, chunk):
    begun, predict, noise = begun_chunk(omni, params, canvas.replace(caches=caches), chunk, keys, sampling)

    def watched(x, t, carried, *gap):
      caches, seen, number = carried
      predicted, caches = predict(x, t, caches, *gap)
      return predicted, (caches, seen.at[number].set(x), number + 1)

    carried = begun.caches, jnp.zeros((asked, *noise.shape), noise.dtype), jnp.int32(0)
    finished, (caches, seen, _) = walk(
      watched, noise, sampling.diffusion_steps, sampling.solver, sampling.time_shift, carried
    )
    return predict(finished, 1.0, caches)[1], jnp.concatenate([seen, finished[None]])

  return jax.lax.scan(step, canvas.caches, jnp.arange(canvas.layout.count))[1]
