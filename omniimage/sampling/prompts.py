"""What a prompt or a conversation is to the model: tokens up to where it is to go on.

Axes: B prompts, P their padded length, N tokens of one, I images, H × W pixels.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array

from omniimage.data import conversation
from omniimage.data.conversation import Encoded, ImageTurn, TextTurn, Turn
from omniimage.data.text import TextTokenizer, as_text
from omniimage.errors import UserError
from omniimage.models.adapter import InputFeatures
from omniimage.settings import Settings
from omniimage.size import Size
from omniimage.vocabulary import Vocabulary, image_length

BUCKET = 16  # prompts are padded to a multiple of this, so that few lengths are compiled


def pad(rows: Sequence[Sequence[int]], vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
  """Tokens (B, P), padded on the right to a bucket, and lengths (B,)."""
  lengths = np.asarray([len(row) for row in rows], np.int32)
  padded = -(-max(lengths) // BUCKET) * BUCKET
  return np.asarray([[*row, *[vocabulary.pad] * (padded - len(row))] for row in rows], np.int32), lengths


def room_before_image(settings: Settings) -> int:
  """Tokens that a row has room for before an image, what begins turns included."""
  return settings.data.sequence_length - image_length(settings.buckets[0]) - 1  # <eos>


def without_words(tokens: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
  """What guidance compares a prompt (N,) with: that without the words of its last turn of the user, and of what has
  been written of the answer. As `omniimage.data.tasks.without_words`, of tokens."""
  is_before = np.cumsum(tokens[::-1] == vocabulary.user)[::-1] > 0
  return tokens[is_before | (tokens >= vocabulary.text_size)]


def input_features(prompts: np.ndarray, shown: np.ndarray | None, vocabulary: Vocabulary) -> InputFeatures | None:
  """Features (n, D) of the n places of the images that the user has shown, put where their codes are in the prompts
  (B, P). All prompts have these images, in this order, whatever words they have; None where there are no features."""
  if shown is None:
    return None
  index = np.arange(prompts.shape[1])
  user, assistant = (
    np.maximum.accumulate(np.where(prompts == turn, index, -1), axis=1)
    for turn in (vocabulary.user, vocabulary.assistant)
  )
  there = (prompts >= vocabulary.codes) & (user > assistant)
  values = np.zeros((*prompts.shape, shown.shape[-1]), shown.dtype)
  values[there] = np.tile(shown, (len(prompts), 1))
  return InputFeatures(values, there)


def read_prompt(prompt: str, settings: Settings, text_tokenizer: TextTokenizer) -> list[int]:
  """The prompt's tokens. UserError if it is empty or longer than a row has room for beside the image."""
  _check_words(prompt)
  tokens = text_tokenizer.encode(prompt)
  room = settings.data.sequence_length - conversation.length(0, 1, settings.buckets[0])
  if len(tokens) > room:
    raise UserError(
      f"the prompt has {len(tokens)} tokens and the model reads at most {room}; shorten it: {prompt[:60]!r}…"
    )
  return tokens


def read_turns(
  turns: str | Sequence[str | np.ndarray | Turn],
  settings: Settings,
  text_tokenizer: TextTokenizer,
  vocabulary: Vocabulary,
) -> Encoded:
  """A conversation as training encodes it, up to where the assistant goes on. A text or an image (H, W, 3) uint8 is the
  user's, a TextTurn or an ImageTurn that of its role; a text alone is a conversation.

  UserError if it is empty, has an empty text or an image of another size, or is longer than a row has room for beside
  the next image."""
  turns = [turns] if isinstance(turns, str) else turns
  if not turns:
    raise UserError("the conversation is empty; begin it with what to draw, for example ['a large red star']")
  as_data = [_read_turn(turn, settings.buckets[0]) for turn in turns]
  encoded = conversation.encode_prompt(as_data, text_tokenizer, vocabulary, settings.buckets[0])
  length, room = len(encoded.tokens), room_before_image(settings)
  if length > room:
    raise UserError(
      f"the conversation has {length} tokens and the model reads at most {room} beside the next image; leave out turns"
    )
  return encoded


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


def _check_words(prompt: str):
  if not prompt.strip():
    raise UserError("the prompt is empty; say what to draw, for example --prompt='a large red star'")


def _read_turn(turn: str | np.ndarray | Turn, size: Size) -> Turn:
  said = turn.text if isinstance(turn, TextTurn) else turn.image if isinstance(turn, ImageTurn) else turn
  if isinstance(said, str):
    _check_words(said)
  else:
    _check_image(said, size)
  if isinstance(turn, Turn):
    return turn
  return TextTurn(turn, is_target=False) if isinstance(turn, str) else ImageTurn(turn, is_target=False)


def _check_image(image: np.ndarray, size: Size):
  shape = (*size.pixels, 3)
  if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != shape:
    given = f"{image.shape} of {image.dtype}" if isinstance(image, np.ndarray) else f"a {type(image).__name__}"
    raise UserError(
      f"a turn is a text or an image of {shape} in uint8 (data.image_size), got {given}; resize the image"
    )
