"""A conversation: turns of text and images, and the sequence of tokens they become.

The grammar is <user> part … part <assistant> part … part <eos>, turn after turn, where a part is text or <image> rows
columns code … code </image>. Where the codes go stand placeholders (`vocabulary.codes`): the step encodes the images
and scatters their codes there.

What the assistant says and shows is the target, with the `<eos>` that ends its turn. What begins a turn is given, by
the data or by whoever samples, and never learnt. A user says nothing with a text that is empty: the turn stays.

Positions have three axes (time, row, column). Text and specials are at (t, t, t), each one later than the last; the
codes of an image whose first code is at t₀ are at (t₀, t₀ + row, t₀ + column), `</image>` at t₀ + max(rows, columns).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from omniimage.size import Size
from omniimage.vocabulary import ASSISTANT, OPENING, USER, Vocabulary, image_length, turns_length

# Axes: N tokens, I images, H and W pixels.


class Tokenizer(Protocol):
  """What a conversation needs of a text tokenizer."""

  def encode(self, text: str) -> list[int]: ...


class Said:
  """A part of a turn: those of one role that follow one another are one turn."""

  is_target: bool  # whether it is the assistant's, and learnt

  @property
  def role(self) -> str:
    return ASSISTANT if self.is_target else USER


@dataclass(frozen=True)
class TextTurn(Said):
  text: str
  is_target: bool


@dataclass(frozen=True, eq=False)
class ImageTurn(Said):
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


def length(text_tokens, num_images, size: Size, exchanges=1):
  """Tokens of a conversation with so much text and so many images of a size, in so many exchanges: each a turn of the
  user and the assistant's answer. Of numbers or arrays."""
  return text_tokens + num_images * image_length(size) + exchanges * turns_length((USER, ASSISTANT))


def encode(turns: Sequence[Turn], text_tokenizer: Tokenizer, vocabulary: Vocabulary, size: Size) -> Encoded:
  """The tokens of a conversation with images of a size, positions and weights. ValueError if there are no turns.

  The assistant's tokens weigh 1, its `<eos>` included, all others 0.
  """
  pieces = _pieces(turns, text_tokenizer, vocabulary, size)
  if turns[-1].role == ASSISTANT:
    pieces.append(_special(vocabulary.eos, weight=1))
  return _joined(pieces, turns)


def encode_prompt(turns: Sequence[Turn], text_tokenizer: Tokenizer, vocabulary: Vocabulary, size: Size) -> Encoded:
  """As `encode`, up to where the assistant goes on: with its answer, or with the turn that it has begun."""
  pieces = _pieces(turns, text_tokenizer, vocabulary, size)
  if turns[-1].role == USER:
    pieces.append(_special(vocabulary.assistant))
  return _joined(pieces, turns)


class _Piece(NamedTuple):
  """Tokens (N,) that stand together, their positions (N,3) counted from the first, and what each of them weighs.

  Attributes:
    is_image: whether they are `<image>` … `</image>`.
  """

  tokens: np.ndarray
  positions: np.ndarray
  weight: float
  is_image: bool = False


def _pieces(turns: Sequence[Turn], text_tokenizer: Tokenizer, vocabulary: Vocabulary, size: Size) -> list[_Piece]:
  """All but what ends the last turn."""
  if not turns:
    raise ValueError("a conversation needs at least one turn of text or image, got none")
  pieces, speaker = [], None
  for turn in turns:
    if turn.role != speaker:
      if speaker == ASSISTANT:
        pieces.append(_special(vocabulary.eos, weight=1))
      pieces.append(_special(vocabulary.turn(turn.role)))
      speaker = turn.role
    if isinstance(turn, ImageTurn):
      pieces.append(_Piece(*image_tokens(size.rows, size.columns, vocabulary), turn.is_target, is_image=True))
    else:
      tokens = _text_tokens(turn.text, text_tokenizer, vocabulary)
      pieces.append(_Piece(tokens, _text_positions(len(tokens)), turn.is_target))
  return pieces


def _special(token: int, weight: float = 0) -> _Piece:
  return _Piece(np.array([token], np.int32), _text_positions(1), weight)


def _joined(pieces: Sequence[_Piece], turns: Sequence[Turn]) -> Encoded:
  """One after the other, each later than the last."""
  positions, image_starts = [], []
  start = time = 0
  for piece in pieces:
    if piece.is_image:
      image_starts.append(start + OPENING)
    positions.append(piece.positions + time)
    start += len(piece.tokens)
    time += piece.positions[-1, 0] + 1 if len(piece.tokens) else 0
  images = [turn for turn in turns if isinstance(turn, ImageTurn)]
  weights = np.array([piece.weight for piece in pieces], np.float32)
  return Encoded(
    tokens=np.concatenate([piece.tokens for piece in pieces]),
    positions=np.concatenate(positions),
    loss_weights=np.repeat(weights, [len(piece.tokens) for piece in pieces]),
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
