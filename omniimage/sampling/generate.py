"""From prompts to pictures with a trained model: many at once, or one as it comes."""

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
from omniimage.data.conversation import Turn
from omniimage.data.text import TextTokenizer
from omniimage.models.layers import patchify, unpatchify
from omniimage.models.omni import Omni, Params
from omniimage.sampling.autoregressive import prefill, sample_tokens
from omniimage.sampling.diffusion import paint, text_conditions
from omniimage.sampling.prompts import pad, read_prompt, read_turns, to_float
from omniimage.sampling.session import Answer, Pieces, Session
from omniimage.settings import SamplingSettings, Settings
from omniimage.streams import Stream, fold

GRAY = 0.0  # what is still to come, in [-1, 1]


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
  """Draws prompts. Compiles once for each number of prompts and length of prompt; `session` once for each length."""

  def __init__(self, settings: Settings, params: Params, text_tokenizer: TextTokenizer):
    """`params` as stored (stacked): {tokenizer, prior, decoder}."""
    self.omni = Omni(settings, text_tokenizer.size, scan=False, unwritten=text_tokenizer.unwritten)
    self.text_tokenizer = text_tokenizer
    self.load(params)
    self._draw = jax.jit(functools.partial(draw_prompts, self.omni), static_argnames="sampling")
    self._reconstruct = jax.jit(functools.partial(reconstruct, self.omni))
    self._repaint = jax.jit(functools.partial(repaint, self.omni), static_argnames="sampling")
    self._preview = jax.jit(functools.partial(render_written, self.omni))
    self._pieces = Pieces(self.omni)

  def load(self, params: Params):
    """Draws with other parameters from here on, without compiling again."""
    self.params = jax.jit(self.omni.view)(params)

  def encode(self, images: Array) -> Array:
    """Codes (B, h, w) of images (B, H, W, 3), uint8 or float in [-1, 1]."""
    return self._pieces.encode(self.params, to_float(images))[0]

  def reconstruct(self, images: Array) -> Array:
    """The tokenizer's rendering of images (B, H, W, 3), uint8 or float in [-1, 1], from their own codes."""
    return self._reconstruct(self.params, to_float(images))

  def prompt_tokens(self, prompts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Prompts as tokens up to where codes begin: (B, P) padded on the right, and lengths (B,). Raises UserError."""
    settings, v = self.omni.settings, self.omni.vocabulary
    before_codes = [v.assistant, *v.opening(settings.buckets[0].rows, settings.buckets[0].columns)]
    return pad([[v.user, *read_prompt(prompt, settings, self.text_tokenizer), *before_codes] for prompt in prompts], v)

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

  def session(
    self, turns: str | Sequence[str | np.ndarray | Turn], seed: int = 0, text_first: bool = False, **changes
  ) -> Session:
    """Opens a conversation, to be answered by the assistant, event by event (`omniimage.sampling.events`).

    A prompt is answered with the image that `self([prompt], seed, **changes)` draws. Nothing is computed before the
    first event is asked for.

    Args:
      turns: texts and images (H, W, 3) uint8, in order, or one text. They are the user's; what the assistant has said
        and shown before is TextTurn(text, is_target=True) and ImageTurn(image, is_target=True).
      text_first: the answer begins with text, and only where that begins an image does the image follow.
      changes: as above.

    Raises UserError where the model cannot read the turns, SettingsError where changes cannot be.
    """
    sampling = self._sampling(changes)
    encoded = read_turns(turns, self.omni.settings, self.text_tokenizer, self.omni.vocabulary)
    answer = Answer(self.omni, self._pieces, self.params, self.text_tokenizer, row_keys(seed, 1), sampling)
    return Session(answer.events(encoded, text_first))

  def preview(self, codes: np.ndarray) -> np.ndarray:
    """The tokenizer's rendering (H, W, 3) of the first n codes (n,) of an image; the places of the others are gray."""
    size = self.omni.settings.buckets[0]
    padded = np.pad(codes, (0, size.tokens - len(codes))).reshape(size.rows, size.columns)
    return np.asarray(self._preview(self.params, padded, np.int32(len(codes))))

  def _sampling(self, changes: dict[str, Any]) -> SamplingSettings:
    settings = self.omni.settings
    return dataclasses.replace(settings, sampling=dataclasses.replace(settings.sampling, **changes)).sampling


def row_keys(seed: int, rows: int) -> Array:
  """(rows,) random keys of the drawings of a seed, one a row."""
  return jax.random.split(fold(seeds.key(seed), Stream.DRAWINGS), rows)


def reconstruct(omni: Omni, params: Params, images: Array) -> Array:
  """Images (B, H, W, 3) in [-1, 1] → codes → the tokenizer's rendering of them."""
  features = omni.encode(params, omni.shrink(images)).features
  return jnp.clip(omni.render(params, features), -1, 1)


def render_written(omni: Omni, params: Params, codes: Array, written: Array) -> Array:
  """The tokenizer's rendering (H, W, 3) of the first `written` of the codes (h, w), zeros given to it for the others,
  whose places are gray."""
  h, w = codes.shape
  there = jnp.arange(h * w) < written
  features = jnp.where(there.reshape(h, w, 1), omni.features(params, codes), 0.0)
  patch_size = omni.settings.tokenizer.patch_size
  patches = patchify(jnp.clip(omni.render(params, features), -1, 1), patch_size)
  return unpatchify(jnp.where(there[:, None], patches, GRAY), patch_size, w)


def draw_prompts(
  omni: Omni, params: Params, tokens: Array, lengths: Array, keys: Array, *, sampling: SamplingSettings
) -> Drawing:
  """Prompts (B, P) of one turn of the user, ending in `<image>` rows columns, → drawing. Pure; `params` unstacked."""
  (B, P), size, v = tokens.shape, omni.settings.buckets[0], omni.vocabulary
  prompt, prompt_lengths = tokens, lengths
  if sampling.guidance != 1:
    wordless = [v.user, v.assistant, *v.opening(size.rows, size.columns)]
    bare = jnp.broadcast_to(jnp.asarray(wordless + [v.pad] * (P - len(wordless))), (B, P))
    prompt_lengths = jnp.concatenate([lengths, jnp.full((B,), len(wordless))])
    prompt = jnp.concatenate([tokens, bare])
  written, hidden = prefill(omni, params, prompt, prompt_lengths, size.tokens)
  _, drawn = sample_tokens(omni, params, written, P, jnp.arange(size.tokens), keys, sampling, codes_only=True)
  codes = (drawn - omni.vocabulary.codes).reshape(B, size.rows, size.columns)
  return _finish(omni, params, tokens, lengths, hidden[:B], codes, keys, sampling)


def repaint(
  omni: Omni, params: Params, tokens: Array, lengths: Array, codes: Array, keys: Array, *, sampling: SamplingSettings
) -> Drawing:
  """As `draw_prompts`, with the codes (B, h, w) given."""
  _, hidden = prefill(omni, params, tokens, lengths, 0)
  return _finish(omni, params, tokens, lengths, hidden, codes, keys, sampling)


def _finish(omni, params, tokens, lengths, hidden, codes, keys, sampling) -> Drawing:
  conditions = text_conditions(omni, hidden, tokens, lengths)
  features = omni.features(params, codes)
  images = paint(omni, params, features, *conditions, keys, sampling)
  return Drawing(codes, jnp.clip(omni.render(params, features), -1, 1), jnp.clip(images, -1, 1))
