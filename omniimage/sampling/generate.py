"""From prompts to pictures with a trained model."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from omniimage import seeds
from omniimage.data import conversation
from omniimage.data.text import TextTokenizer, as_text
from omniimage.errors import UserError
from omniimage.models.omni import Omni, Params
from omniimage.sampling.autoregressive import prefill, sample_tokens
from omniimage.sampling.diffusion import paint
from omniimage.settings import SamplingSettings, Settings
from omniimage.streams import Stream, fold

PROMPT_BUCKET = 16  # prompts are padded to a multiple of this, so that few lengths are compiled


@flax.struct.dataclass
class Drawing:
  """What came of B prompts.

  Attributes:
    codes: (B, h, w) sampled visual tokens.
    rendering: (B, H, W, 3) of the tokenizer's own decoder, in [-1, 1].
    images: (B, H, W, 3) of the diffusion decoder, in [-1, 1].
  """

  codes: Array
  rendering: Array
  images: Array


class Generator:
  """Draws prompts. Compiles once for each number of prompts and length of prompt."""

  def __init__(self, settings: Settings, params: Params, text_tokenizer: TextTokenizer):
    """`params` as stored (stacked): {tokenizer, prior, decoder}."""
    self.omni = Omni(settings, text_tokenizer.size, scan=False)
    self.text_tokenizer = text_tokenizer
    self.load(params)
    self._draw = jax.jit(functools.partial(draw_prompts, self.omni), static_argnames="sampling")
    self._encode = jax.jit(lambda params, images: self.omni.encode(params, self.omni.shrink(images))[1])
    self._reconstruct = jax.jit(functools.partial(reconstruct, self.omni))
    self._repaint = jax.jit(functools.partial(repaint, self.omni), static_argnames="sampling")

  def load(self, params: Params):
    """Draws with other parameters from here on, without compiling again."""
    self.params = jax.jit(self.omni.view)(params)

  def encode(self, images: Array) -> Array:
    """Codes (B, h, w) of images (B, H, W, 3), uint8 or float in [-1, 1]."""
    return self._encode(self.params, to_float(images))

  def reconstruct(self, images: Array) -> Array:
    """The tokenizer's rendering of images (B, H, W, 3), uint8 or float in [-1, 1], from their own codes."""
    return self._reconstruct(self.params, to_float(images))

  def prompt_tokens(self, prompts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Prompts as tokens up to where codes begin: (B, P) padded on the right, and lengths (B,). Raises UserError."""
    settings, v = self.omni.settings, self.omni.vocabulary
    opening = [v.image, v.size(settings.token_grid), v.size(settings.token_grid)]
    rows = [read_prompt(prompt, settings, self.text_tokenizer) + opening for prompt in prompts]
    lengths = np.asarray([len(row) for row in rows], np.int32)
    padded = -(-max(lengths) // PROMPT_BUCKET) * PROMPT_BUCKET
    return np.asarray([row + [v.pad] * (padded - len(row)) for row in rows], np.int32), lengths

  def __call__(self, prompts: list[str], seed: int = 0, **changes) -> Drawing:
    """Draws each prompt once. `changes` override `settings.sampling`, for example `guidance=2.0`. SettingsError where
    they cannot be."""
    sampling = self._sampling(changes)
    tokens, lengths = self.prompt_tokens(prompts)
    keys = row_keys(seed, len(prompts))
    return self._draw(self.params, tokens, lengths, keys, sampling=sampling)

  def repaint(self, prompts: list[str], codes: Array, seed: int = 0, **changes) -> Drawing:
    """Paints given codes (B, h, w) under the prompts: the decoder alone, without the prior's choice of codes."""
    sampling = self._sampling(changes)
    tokens, lengths = self.prompt_tokens(prompts)
    keys = row_keys(seed, len(prompts))
    return self._repaint(self.params, tokens, lengths, codes, keys, sampling=sampling)

  def _sampling(self, changes: dict[str, Any]) -> SamplingSettings:
    settings = self.omni.settings
    return dataclasses.replace(settings, sampling=dataclasses.replace(settings.sampling, **changes)).sampling


def row_keys(seed: int, rows: int) -> Array:
  """(rows,) random keys of the drawings of a seed, one a row."""
  return jax.random.split(fold(seeds.key(seed), Stream.DRAWINGS), rows)


def read_prompt(prompt: str, settings: Settings, text_tokenizer: TextTokenizer) -> list[int]:
  """The prompt's tokens. UserError if it is empty or longer than a row has room for beside the image."""
  if not prompt.strip():
    raise UserError("the prompt is empty; say what to draw, for example --prompt='a large red star'")
  tokens = text_tokenizer.encode(prompt)
  room = settings.data.sequence_length - conversation.length(0, 1, settings.token_grid)
  if len(tokens) > room:
    raise UserError(
      f"the prompt has {len(tokens)} tokens and the model reads at most {room}; shorten it: {prompt[:60]!r}…"
    )
  return tokens


def check_text(prompt: str):
  """UserError where bytes of a prompt that a person typed are no text, which Python keeps as lone surrogates."""
  if as_text(prompt) != prompt:
    raise UserError(f"the prompt has bytes that are no text in UTF-8: {prompt[:60]!a}; type it again in UTF-8")


def unseen(prompts: Sequence[str], settings: Settings, text_tokenizer: TextTokenizer) -> str:
  """What the painter does not see of the first prompt that is longer than it reads, in words; empty if it sees all."""
  reads = settings.decoder.text_length
  longer = [tokens for tokens in map(text_tokenizer.encode, dict.fromkeys(prompts)) if len(tokens) > reads]
  if not longer:
    return ""
  return (
    f"the painter reads the last {reads} of the prompt's {len(longer[0])} tokens (decoder.text_length) and does not "
    f"see {text_tokenizer.decode(longer[0][:-reads])!r}; only the visual tokens may show that"
    f"{f'; so it is with {len(longer) - 1} more prompts' if len(longer) > 1 else ''}"
  )


def to_float(images: Array) -> Array:
  """uint8 images as float32 in [-1, 1]; float images as they are."""
  return images.astype(jnp.float32) / 127.5 - 1 if images.dtype == jnp.uint8 else images


def reconstruct(omni: Omni, params: Params, images: Array) -> Array:
  """Images (B, H, W, 3) in [-1, 1] → codes → the tokenizer's rendering of them."""
  features, _ = omni.encode(params, omni.shrink(images))
  return jnp.clip(omni.decode(params, features), -1, 1)


def draw_prompts(
  omni: Omni, params: Params, tokens: Array, lengths: Array, keys: Array, *, sampling: SamplingSettings
) -> Drawing:
  """Prompts (B, P), ending in `<image>` rows columns, → drawing. Pure; `params` unstacked."""
  (B, P), grid = tokens.shape, omni.settings.token_grid
  # Without text the prompt is its last three tokens.
  prompt, prompt_lengths = tokens, lengths
  if sampling.guidance != 1:
    opening = jnp.take_along_axis(tokens, lengths[:, None] - 3 + jnp.arange(3), axis=1)
    opening = jnp.pad(opening, ((0, 0), (0, P - 3)), constant_values=omni.vocabulary.pad)
    prompt, prompt_lengths = jnp.concatenate([tokens, opening]), jnp.concatenate([lengths, jnp.full((B,), 3)])
  written, hidden = prefill(omni, params, prompt, prompt_lengths, grid**2)
  _, drawn = sample_tokens(omni, params, written, P, jnp.arange(grid**2), keys, sampling, codes_only=True)
  codes = (drawn - omni.vocabulary.codes).reshape(B, grid, grid)
  return _finish(omni, params, tokens, lengths, hidden[:B], codes, keys, sampling)


def repaint(
  omni: Omni, params: Params, tokens: Array, lengths: Array, codes: Array, keys: Array, *, sampling: SamplingSettings
) -> Drawing:
  """As `draw_prompts`, with the codes (B, h, w) given."""
  _, hidden = prefill(omni, params, tokens, lengths, 0)
  return _finish(omni, params, tokens, lengths, hidden, codes, keys, sampling)


def _finish(omni, params, tokens, lengths, hidden, codes, keys, sampling) -> Drawing:
  exists = (jnp.arange(tokens.shape[1]) < lengths[:, None]).astype(jnp.int32)
  states, there = omni.text_states(hidden, tokens, exists, lengths[:, None] - 1)
  features = omni.quantizer.features(codes)
  images = paint(omni, params, features, states[:, 0], there[:, 0], keys, sampling)
  return Drawing(codes, jnp.clip(omni.decode(params, features), -1, 1), jnp.clip(images, -1, 1))
