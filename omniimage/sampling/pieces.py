"""What sessions compute, in pieces: pure functions, compiled once for each shape and shared by all of a generator.

Axes: B conversations, S places, D prior width, h × w visual tokens, H × W pixels.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from omniimage.distributed.spread import Spread
from omniimage.models.adapter import InputFeatures
from omniimage.models.layers import unpatchify
from omniimage.models.omni import Omni, Params
from omniimage.sampling import reading
from omniimage.sampling.autoregressive import Written, prefill, sample_tokens
from omniimage.sampling.diffusion import Canvas, blank, paint_chunk, text_conditions
from omniimage.sampling.kept import Kept
from omniimage.sampling.kernels import compiled, over_rows
from omniimage.settings import SamplingSettings


class Pieces:
  """The compiled pieces of a model's sessions. What is carried from one to the next is donated."""

  def __init__(self, omni: Omni, spread: Spread | None = None):
    def of_omni(piece, static: tuple[str, ...] = (), **options):
      return compiled(functools.partial(piece, omni), static_argnames=static, **options)

    self.encode = over_rows(functools.partial(encode, omni), spread)
    self.blank_rows = of_omni(functools.partial(reading.blank_rows, batch=1), ("places",))
    self.read = of_omni(reading.read, donate_argnames="rows")
    self.read_beside = of_omni(reading.read_beside)
    self.first_row = jax.jit(reading.first_row)
    self.grown = jax.jit(reading.grown, static_argnames="places")
    self.go_on = of_omni(reading.go_on, ("count", "sampling", "codes_only", "stream"), donate_argnames="rows")
    self.begin_codes = of_omni(begin_codes, ("count",))
    self.next_codes = of_omni(next_codes, ("count", "sampling"), donate_argnames="written")
    self.begin_canvas = of_omni(begin_canvas, ("sampling",))
    self.next_chunk = of_omni(next_chunk, ("sampling",), donate_argnames="canvas")


def encode(omni: Omni, params: Params, images: Array) -> tuple[Array, Array | None]:
  """Codes (B, h, w) of images (B, H, W, 3) in [-1, 1], and the features (B, h·w, D) that the prior reads of those that
  the user shows; None if it reads their codes alone."""
  encoded = omni.encode(params, omni.shrink(images))
  return encoded.codes, omni.adapt(params, encoded)


def begin_codes(
  omni: Omni,
  params: Params,
  tokens: Array,
  lengths: Array,
  features: InputFeatures | None = None,
  *,
  count: int,
) -> tuple[Written, Array]:
  """`prefill` of prompts (B, P) behind which so many codes will be drawn."""
  return prefill(omni, params, tokens, lengths, count, features)


def next_codes(
  omni: Omni,
  params: Params,
  written: Written,
  start: Array,
  first: Array,
  keys: Array,
  given: Array | None = None,
  *,
  count: int,
  sampling: SamplingSettings,
) -> tuple[Written, Array]:
  """`sample_tokens`, codes alone: tokens (B, count) number `first` and after of images that begin at place `start`."""
  numbers = first + jnp.arange(count)
  return sample_tokens(omni, params, written, start, numbers, keys, sampling, codes_only=True, given_tokens=given)


def begin_canvas(
  omni: Omni,
  params: Params,
  tokens: Array,
  lengths: Array,
  hidden: Array,
  codes: Array,
  *,
  sampling: SamplingSettings,
) -> tuple[Canvas, Array]:
  """A canvas for codes (B, h, w) behind the first `lengths` (B,) of the tokens (B, S), which were read as `hidden`
  (B, S, D), and the tokenizer's rendering (B, H, W, 3) of the codes."""
  conditions = text_conditions(omni, hidden, tokens, lengths)
  features = omni.features(params, codes)
  return blank(omni, params, features, *conditions, sampling), jnp.clip(omni.render(params, features), -1, 1)


def next_chunk(
  omni: Omni,
  params: Params,
  canvas: Canvas,
  chunk: Array,
  keys: Array,
  kept: Kept | None = None,
  *,
  sampling: SamplingSettings,
) -> tuple[Canvas, Array]:
  """The pixels (B, rows, columns, 3) of a chunk."""
  canvas, patches = paint_chunk(omni, params, canvas, chunk, keys, sampling, kept)
  return canvas, jnp.clip(unpatchify(patches, omni.settings.decoder.patch_size, canvas.layout.width), -1, 1)
