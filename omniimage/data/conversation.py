"""A conversation: turns of text and images, and the sequence of tokens they become.

The grammar is text | <image> rows columns code … code </image>, turn after turn, then <eos>. Where the codes go stand
placeholders (`vocabulary.codes`): the step encodes the images and scatters their codes there.

Positions have three axes (time, row, column). Text and specials are at (t, t, t), each one later than the last; the
codes of an image whose first code is at t₀ are at (t₀, t₀ + row, t₀ + column), `</image>` at t₀ + max(rows, columns).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from omniimage.size import Size
from omniimage.vocabulary import OPENING, Vocabulary, image_length

# Axes: N tokens, I images, H and W pixels.


class Tokenizer(Protocol):
  """What a conversation needs of a text tokenizer."""

  def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True)
class TextTurn:
  text: str
  is_target: bool


@dataclass(frozen=True, eq=False)
class ImageTurn:
  image: np.ndarray  # (H,W,3) uint8, or its codes (h,w) int32 where those were stored
  is_target: bool

  def __post_init__(self):
    image = self.image
    kind = (image.dtype, image.ndim, *image.shape[2:]) if isinstance(image, np.ndarray) else None
    if kind not in ((np.uint8, 3, 3), (np.int32, 2)):
      what = f"{image.shape} of {image.dtype}" if isinstance(image, np.ndarray) else f"a {type(image).__name__}"
      raise ValueError(f"ImageTurn: expected (height, width, 3) pixels of uint8, got {what}")


Turn = TextTurn | ImageTurn


@dataclass(frozen=True, eq=False)
class Encoded:
  """One conversation, not yet packed. `loss_weights[i]` weighs token i as what position i−1 should predict."""

  tokens: np.ndarray  # (N,) int32
  positions: np.ndarray  # (N,3) int32: time, row, column
  loss_weights: np.ndarray  # (N,) float32
  images: tuple[np.ndarray, ...]  # of the turns, pixels or codes
  image_starts: np.ndarray  # (I,) int32: index of the first code
  image_is_target: np.ndarray  # (I,) bool


def length(text_tokens, num_images, size: Size):
  """Tokens of a conversation with so much text and so many images of a size; of numbers or arrays."""
  return text_tokens + num_images * image_length(size) + 1


def encode(turns: Sequence[Turn], text_tokenizer: Tokenizer, vocabulary: Vocabulary, size: Size) -> Encoded:
  """The tokens of a conversation with images of a size, positions and weights. ValueError if there are no turns.

  Tokens of target turns weigh 1 and all others 0; `<eos>` weighs 1 and the first token 0, for nothing precedes it.
  """
  if not turns:
    raise ValueError("a conversation needs at least one turn of text or image, got none")
  tokens, positions, image_starts = [], [], []
  start = time = 0
  for turn in turns:
    if isinstance(turn, ImageTurn):
      turn_tokens, turn_positions = image_tokens(size.rows, size.columns, vocabulary)
      image_starts.append(start + OPENING)
    else:
      turn_tokens = _text_tokens(turn.text, text_tokenizer, vocabulary)
      turn_positions = _text_positions(len(turn_tokens))
    tokens.append(turn_tokens)
    positions.append(turn_positions + time)
    start += len(turn_tokens)
    time += turn_positions[-1, 0] + 1 if len(turn_tokens) else 0
  tokens.append(np.array([vocabulary.eos], np.int32))
  positions.append(_text_positions(1) + time)
  weights = np.array([*(turn.is_target for turn in turns), True], np.float32)
  loss_weights = np.repeat(weights, [len(piece) for piece in tokens])
  loss_weights[0] = 0

  images = [turn for turn in turns if isinstance(turn, ImageTurn)]
  return Encoded(
    tokens=np.concatenate(tokens),
    positions=np.concatenate(positions),
    loss_weights=loss_weights,
    images=tuple(turn.image for turn in images),
    image_starts=np.array(image_starts, np.int32),
    image_is_target=np.array([turn.is_target for turn in images], bool),
  )


@functools.lru_cache(maxsize=64)
def image_tokens(rows: int, columns: int, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
  """`<image>` … `</image>` with placeholders for the codes, (N,), and positions (N,3) that count from `<image>`."""
  before = vocabulary.opening(rows, columns)
  tokens = np.array([*before, *[vocabulary.codes] * (rows * columns), vocabulary.end_image], np.int32)
  codes = OPENING + np.indices((1, rows, columns), np.int32).reshape(3, -1).T
  after = np.full((1, 3), OPENING + max(rows, columns), np.int32)
  positions = np.concatenate([_text_positions(OPENING), codes, after])
  tokens.flags.writeable = positions.flags.writeable = False  # both are shared by all that ask
  return tokens, positions


def _text_tokens(text: str, text_tokenizer: Tokenizer, vocabulary: Vocabulary) -> np.ndarray:
  ids = text_tokenizer.encode(text)
  if max(ids, default=0) >= vocabulary.text_size:
    raise ValueError(
      f"the text tokenizer wrote id {max(ids)}, but the vocabulary has {vocabulary.text_size} text ids: "
      "give Vocabulary the size of this tokenizer"
    )
  return np.array(ids, np.int32)


@functools.lru_cache(maxsize=1024)
def _text_positions(n: int) -> np.ndarray:
  positions = np.repeat(np.arange(n, dtype=np.int32)[:, None], 3, axis=1)
  positions.flags.writeable = False
  return positions
