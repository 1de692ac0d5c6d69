"""What a prompt or a conversation is to the model: tokens up to where it is to go on.

Axes: B prompts, P their padded length, N tokens of one, I images, h × w visual tokens, H × W pixels, D prior width.
"""

import os
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array
from PIL import Image

from omniimage.data import conversation
from omniimage.data.conversation import Encoded, ImageTurn, TextTurn, Turn
from omniimage.data.text import TextTokenizer, as_text
from omniimage.errors import UserError
from omniimage.models.adapter import READ, InputFeatures
from omniimage.sampling.pictures import Picture, read_picture
from omniimage.settings import Settings
from omniimage.vocabulary import Vocabulary, image_length

BUCKET = 16  # prompts are padded to a multiple of this, so that few lengths are compiled

Part = str | Picture | Turn  # what a conversation may be given as
NO_WORDS = TextTurn("", is_target=False)  # this one alone: a prompt without any, for a picture that goes by another


class ConversationFull(UserError):
  """A conversation that leaves no room for an answer."""


def pad(rows: Sequence[Sequence[int]], vocabulary: Vocabulary, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
  """Tokens (B, P), padded on the right to a bucket, P no less than `least`, and lengths (B,)."""
  lengths = np.asarray([len(row) for row in rows], np.int32)
  padded = -(-max(*lengths, least) // BUCKET) * BUCKET
  return np.asarray([[*row, *[vocabulary.pad] * (padded - len(row))] for row in rows], np.int32), lengths


def without_padding(tokens: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
  """The rows of `pad`."""
  return [row[:length] for row, length in zip(tokens, lengths)]


def room_before_image(settings: Settings) -> int:
  """Tokens that a row has room for before an image, what begins turns included."""
  return room_for_text(settings) - image_length(settings.buckets[0])


def room_for_text(settings: Settings) -> int:
  """Tokens that a row has room for before the `<eos>` of its last answer."""
  return settings.data.sequence_length - 1


def without_words(tokens: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
  """What guidance compares a prompt (N,) with: that without the words of its last turn of the user, and of what has
  been written of the answer. As `omniimage.data.tasks.without_words`, of tokens."""
  is_before = np.cumsum(tokens[::-1] == vocabulary.user)[::-1] > 0
  return tokens[is_before | (tokens >= vocabulary.text_size)]


def input_features(
  prompts: np.ndarray, shown: Sequence[Sequence[np.ndarray]], vocabulary: Vocabulary
) -> InputFeatures | None:
  """Features put where the codes of the images stand that the user has shown, in the prompts (B, P), padded on the
  right; None where there are none.

  Args:
    shown: of each prompt, the features (h·w, D) of all its images that the user has shown, in their order; none at all
      where the prior reads codes alone.
  """
  features = [image for row in shown for image in row]
  if not features:
    return None
  index = np.arange(prompts.shape[1])
  user, assistant = (
    np.maximum.accumulate(np.where(prompts == turn, index, -1), axis=1)
    for turn in (vocabulary.user, vocabulary.assistant)
  )
  there = (prompts >= vocabulary.codes) & (user > assistant)
  values = np.zeros((*prompts.shape, features[0].shape[-1]), features[0].dtype)
  values[there] = np.concatenate(features)
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
  turns: Part | Sequence[Part],
  settings: Settings,
  text_tokenizer: TextTokenizer,
  vocabulary: Vocabulary,
  image_next: bool = True,
) -> Encoded:
  """A conversation as training encodes it, up to where the assistant goes on: with an image, or, without `image_next`,
  perhaps with words alone.

  A text or a picture is the user's, a TextTurn or an ImageTurn that of its role; one part alone is a conversation.

  UserError if it is empty, has an empty text or what is no picture; ConversationFull if it is longer than a row has
  room for beside the answer."""
  as_data = as_turns(turns, settings, vocabulary)
  encoded = conversation.encode_prompt(as_data, text_tokenizer, vocabulary, settings.buckets[0])
  length, what = len(encoded.tokens), "the next image" if image_next else "an answer"
  room = room_before_image(settings) if image_next else room_for_text(settings) - 1
  if length > room:
    raise ConversationFull(
      f"the conversation has {length} tokens and the model reads at most {room} beside {what}; leave out turns"
    )
  return encoded


def as_turns(parts: Part | Sequence[Part], settings: Settings, vocabulary: Vocabulary) -> list[Turn]:
  """The turns of a conversation, pictures in the size that the model reads. UserError as of `read_turns`."""
  parts = [parts] if isinstance(parts, Part) else parts
  if not len(parts):
    raise UserError("the conversation is empty; begin it with what to draw, for example ['a large red star']")
  return [_read_turn(part, settings, vocabulary) for part in parts]


def check_text(prompt: str):
  """UserError where bytes of a prompt that a person typed are no text, which Python keeps as lone surrogates."""
  if as_text(prompt) != prompt:
    raise UserError(f"the prompt has bytes that are no text in UTF-8: {prompt[:60]!a}; type it again in UTF-8")


def unseen(
  prompts: Sequence[str], settings: Settings, text_tokenizer: TextTokenizer, visual_tokens: bool = True
) -> str:
  """What the painter does not see of the first prompt that is longer than it reads, in words; empty if it sees all.
  `visual_tokens`: whether it also reads what has seen the whole prompt."""
  reads = settings.decoder.text_length
  longer = [tokens for tokens in map(text_tokenizer.encode, dict.fromkeys(prompts)) if len(tokens) > reads]
  if not longer:
    return ""
  return (
    f"the painter reads the last {reads} of the prompt's {len(longer[0])} tokens (decoder.text_length) and does not "
    f"see {text_tokenizer.decode(longer[0][:-reads])!r}{'; only the visual tokens may show that' * visual_tokens}"
    f"{f'; so it is with {len(longer) - 1} more prompts' if len(longer) > 1 else ''}"
  )


def to_float(images: Array) -> Array:
  """uint8 images as float32 in [-1, 1]; float images as they are."""
  return images.astype(jnp.float32) / 127.5 - 1 if images.dtype == jnp.uint8 else images


def _check_words(prompt: str):
  if not prompt.strip():
    raise UserError("the prompt is empty; say what to draw, for example --prompt='a large red star'")


def _read_turn(part: Part, settings: Settings, vocabulary: Vocabulary) -> Turn:
  if isinstance(part, str):
    part = TextTurn(part, is_target=False)
  elif isinstance(part, bytes | np.ndarray | Image.Image | os.PathLike):
    part = ImageTurn(read_picture(part, settings), is_target=False)
  if isinstance(part, TextTurn):
    if not part.is_target and part is not NO_WORDS:  # an answer may be empty
      _check_words(part.text)
    return part
  if not isinstance(part, ImageTurn):
    raise UserError(f"a part of a conversation is a text or a picture, got a {type(part).__name__}")
  if part.image.ndim == 2:
    _check_codes(part.image, settings, vocabulary)
    if not part.is_target and settings.prior.input_images in READ:
      raise UserError(
        f"the model reads more of a picture that the user shows than its codes "
        f"(prior.input_images={settings.prior.input_images!r}); give its pixels"
      )
    return part
  return ImageTurn(read_picture(part.image, settings), part.is_target)


def _check_codes(codes: np.ndarray, settings: Settings, vocabulary: Vocabulary):
  size, most = settings.buckets[0], vocabulary.image_codes - 1
  if codes.shape != (size.rows, size.columns) or codes.min() < 0 or codes.max() > most:
    raise UserError(
      f"codes of an image are ({size.rows}, {size.columns}) from 0 to {most}, got {codes.shape} from {codes.min()} to "
      f"{codes.max()}; give its pixels"
    )
