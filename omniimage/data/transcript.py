"""A sequence of tokens as the turns that it says: the way back from `omniimage.data.conversation.encode`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from omniimage.vocabulary import ASSISTANT, OPENING, USER, Vocabulary


class Decoder(Protocol):
  """What a transcript needs of a text tokenizer."""

  def decode(self, ids: list[int]) -> str: ...


@dataclass(frozen=True)
class Transcript:
  """One turn.

  Attributes:
    role: who says it, of ROLES.
    content: text, and the codes (rows, columns) int32 of images, in order.
    is_whole: whether it has ended: the assistant's by `<eos>`, the user's because the assistant's begins.
  """

  role: str
  content: tuple[str | np.ndarray, ...]
  is_whole: bool


def read_tokens(tokens: Sequence[int], text_tokenizer: Decoder, vocabulary: Vocabulary) -> list[Transcript]:
  """The turns of a conversation, codes in their places; what comes behind its end as padding is passed over.

  ValueError names the first token that the grammar does not allow where it stands, or says that an image is cut off.
  """
  v, turns, ended = vocabulary, [], True
  tokens = np.trim_zeros(np.asarray(tokens, np.int64) - v.pad, "b") + v.pad
  starts = np.flatnonzero((tokens == v.user) | (tokens == v.assistant)).tolist()
  if (starts or [len(tokens)])[0] > 0:
    raise ValueError(f"token 0 is {tokens[0]}, before any turn has begun")
  for start, stop in zip(starts, [*starts[1:], len(tokens)]):
    role, own = USER if tokens[start] == v.user else ASSISTANT, tokens[start + 1 : stop]
    if turns and (turns[-1].role == role or not ended):
      raise ValueError(f"token {start} begins a turn of the {role} before that of the {turns[-1].role} has ended")
    closed = role == ASSISTANT and own.size > 0 and own[-1] == v.eos
    content = tuple(_content(own[: len(own) - closed], start + 1, text_tokenizer, v))
    ended = closed or role == USER
    turns.append(Transcript(role, content, closed or (role == USER and stop < len(tokens))))
  return turns


def _content(tokens: np.ndarray, first: int, text_tokenizer: Decoder, v: Vocabulary) -> Iterator[str | np.ndarray]:
  """Texts and images of a turn whose tokens begin at number `first`."""
  place = 0
  while place < len(tokens):
    end = place + int(np.argmax(np.append(tokens[place:] >= v.text_size, True)))
    if end > place:
      yield text_tokenizer.decode(tokens[place:end].tolist())
    if end == len(tokens):
      return
    if tokens[end] != v.image:
      raise ValueError(f"token {first + end} is {tokens[end]}, where text or an image was expected")
    opening = tokens[end : end + OPENING]
    sizes = opening[1:] - v.sizes + 1
    if ((sizes < 1) | (opening[1:] >= v.codes)).any():
      raise ValueError(f"token {first + end + 1} must name the rows of the image and the next its columns")
    place = end + OPENING + int(np.prod(sizes)) + 1
    codes = tokens[end + OPENING : place - 1]
    if len(opening) < OPENING or place > len(tokens):
      raise ValueError(f"the image that token {first + end} begins is cut off")
    if (codes < v.codes).any() or (codes >= v.total).any() or tokens[place - 1] != v.end_image:
      raise ValueError(f"the image that token {first + end} begins is not {sizes[0]}×{sizes[1]} codes and `</image>`")
    yield (codes - v.codes).astype(np.int32).reshape(sizes)
