"""A session: one conversation and how it goes on, event by event, as the batch would have drawn it.

The device computes in pieces (`omniimage.sampling.pieces`): some tokens of text, a row of codes, a chunk. They are
compiled once for each bucket of lengths and the sampling settings, and shared by all sessions of a generator; so
sessions may take turns on one device. Between pieces a session rests: nothing is computed before the next event is
asked for.

Axes: B = 1 conversation (2 with the guidance of the prior), N tokens, h × w visual tokens, H × W pixels.
"""

import dataclasses
import itertools
import threading
from collections.abc import Generator, Iterator, Sequence

import jax
import numpy as np
from jax import Array

from omniimage.data.conversation import Encoded
from omniimage.data.text import TextTokenizer
from omniimage.errors import UserError
from omniimage.models.omni import Omni
from omniimage.sampling.context import Context
from omniimage.sampling.events import Chunk, Codes, Event, Image, Text, TextEnd
from omniimage.sampling.pieces import Pieces
from omniimage.sampling.prompts import room_before_image, room_for_text, without_words
from omniimage.settings import SamplingSettings
from omniimage.streams import Stream, fold
from omniimage.vocabulary import Vocabulary

WORDS = 8  # tokens of text a piece
UNFINISHED = "\ufffd"  # what a text ends with while the bytes of its last character are not all there


class Session:
  """Events as they are asked for, an iterator that can be stopped. What it holds on the device goes with it."""

  def __init__(self, events: Generator[Event, None, None]):
    """`events` computes between two of them only what the second needs."""
    self._events = events
    self._cancelled, self._computing = threading.Event(), threading.Lock()

  def __iter__(self) -> Iterator[Event]:
    return self

  def __next__(self) -> Event:
    with self._computing:
      event = None if self._cancelled.is_set() else next(self._events, None)
      if event is None or self._cancelled.is_set():
        self._events.close()
        raise StopIteration
      return event

  def cancel(self):
    """No event follows and nothing more is computed; what the session held on the device is let go.

    May be called from any thread, and again. An event that another thread is waiting for is computed and dropped.
    """
    self._cancelled.set()
    if self._computing.acquire(blocking=False):
      self._events.close()
      self._computing.release()


@dataclasses.dataclass(frozen=True)
class Form:
  """What an answer is.

  Attributes:
    image_first: its first part is an image, whatever the model would begin with.
    parts: it ends after so many, texts and images, or where the model ends its turn; None: there alone.
  """

  image_first: bool
  parts: int | None


ANSWERS = {
  "image": Form(image_first=True, parts=1),
  "text": Form(image_first=False, parts=1),
  "free": Form(image_first=False, parts=None),
  "image_first": Form(image_first=True, parts=None),
}


def form_of(answer: str) -> Form:
  """The row of ANSWERS. UserError where there is none."""
  if answer not in ANSWERS:
    raise UserError(f"answer={answer!r} must be one of {', '.join(ANSWERS)}")
  return ANSWERS[answer]


@dataclasses.dataclass(frozen=True)
class Answer:
  """How a model answers a conversation. `keys` (1,)."""

  omni: Omni
  pieces: Pieces
  text_tokenizer: TextTokenizer
  keys: Array
  sampling: SamplingSettings

  def events(self, encoded: Encoded, form: Form, context: Context) -> Generator[Event, None, None]:
    """The assistant's turn in a conversation, `encoded` by `read_turns`, of which `context` may have read a part; it
    has read the answer, too, afterwards."""
    tokens, is_image, images, texts = context.place_images(encoded), form.image_first, 0, 0
    for part in itertools.count(1):
      if is_image:
        tokens, images = (yield from self.image(context, tokens, part_keys(self.keys, images))), images + 1
        is_image = False
      else:
        tokens, reason = yield from self.text(context, tokens, part_keys(self.keys, texts))
        if reason != "image":
          return
        is_image, texts = True, texts + 1
      if part == form.parts:
        return

  def text(self, context: Context, tokens: np.ndarray, keys: Array) -> Generator[Event, None, tuple[np.ndarray, str]]:
    """Writes text behind the tokens (N,); returns these with it and why it ended."""
    ids, end, said, room = [], None, "", room_for_text(self.omni.settings) - len(tokens)
    sampling = unguided(self.sampling)
    for first in range(0, room, WORDS):
      context.read(np.concatenate([tokens, ids]).astype(np.int32))
      drawn = context.write(WORDS, first, keys, sampling, Stream.WORDS)[: room - first].tolist()
      words, end = words_of(drawn, self.omni.vocabulary)
      ids += words
      context.keep(len(tokens) + len(ids) + (end is not None))
      if end is not None:
        break
      text = self.text_tokenizer.decode(ids).rstrip(UNFINISHED)
      if text != said:
        yield Text(text.removeprefix(said))
        said = text
    text = self.text_tokenizer.decode(ids)
    if text != said:
      yield Text(text.removeprefix(said))
    tokens = np.concatenate([tokens, np.asarray(ids, np.int32)])
    reason = self._reason(end, len(tokens))
    yield TextEnd(text, reason)
    return tokens, reason

  def _reason(self, end: int | None, length: int) -> str:
    """Why a text ended, by the special behind it, if there is one: an image may have no room any more."""
    v, settings = self.omni.vocabulary, self.omni.settings
    if end == v.image and length <= room_before_image(settings):
      return "image"
    return "eos" if end == v.eos else "length"

  def image(self, context: Context, tokens: np.ndarray, keys: Array) -> Generator[Event, None, np.ndarray]:
    """Draws an image behind the tokens (N,); returns these with it."""
    v, size = self.omni.vocabulary, self.omni.settings.buckets[0]
    tokens = np.concatenate([tokens, v.opening(size.rows, size.columns)]).astype(np.int32)
    context.read(tokens)
    codes = np.empty((size.rows, size.columns), np.int32)
    for row, drawn in enumerate(self._codes(context, tokens, keys)):
      codes[row] = drawn
      yield Codes(row * size.columns, codes[row].copy(), codes.shape)
    yield from self._paint(context, len(tokens), codes, keys)
    return np.concatenate([tokens, v.codes + codes.ravel(), [v.end_image]]).astype(np.int32)

  def _codes(self, context: Context, tokens: np.ndarray, keys: Array) -> Iterator[np.ndarray]:
    """Rows of codes (w,). With guidance in two rows, the second as training saw it without its condition."""
    v, size, sampling = self.omni.vocabulary, self.omni.settings.buckets[0], self.sampling
    firsts = range(0, size.tokens, size.columns)
    if sampling.guidance == 1:
      for first in firsts:
        yield context.write(size.columns, first, keys, sampling, Stream.TOKENS, codes_only=True) - v.codes
      return
    bare, written = without_words(tokens, v), []
    rows = context.read_beside(bare, size.tokens)
    lengths, start = np.array([len(tokens), len(bare)], np.int32), np.int32(len(tokens))
    for first in firsts:
      rows, drawn = self.pieces.go_on(
        context.params, rows, lengths, start, np.int32(first), keys,
        count=size.columns, sampling=sampling, codes_only=True, stream=Stream.TOKENS,
      )  # fmt: skip
      written.append(np.asarray(drawn)[0])
      yield written[-1] - v.codes
    context.adopt(rows, np.concatenate(written))

  def _paint(self, context: Context, length: int, codes: np.ndarray, keys: Array) -> Generator[Event, None, None]:
    """Paints the codes (h, w) of an image behind the first `length` tokens."""
    pieces, params, sampling, size = self.pieces, context.params, self.sampling, self.omni.settings.buckets[0]
    canvas, rendering = pieces.begin_canvas(
      params, context.padded(), np.array([length], np.int32), context.rows.states, codes[None], sampling=sampling
    )
    pixels = np.empty((*size.pixels, 3), np.float32)
    for chunk in range(canvas.layout.count):
      canvas, painted = pieces.next_chunk(params, canvas, np.int32(chunk), keys, sampling=sampling)
      event = Chunk(np.asarray(painted)[0], canvas.place(chunk, size), size.pixels)
      event.put_on(pixels)
      yield event
    yield Image(codes, np.asarray(rendering)[0], pixels)


def words_of(drawn: Sequence[int], vocabulary: Vocabulary) -> tuple[list[int], int | None]:
  """The tokens of text that what was drawn begins with, and the special behind them; None where there is none."""
  words = list(itertools.takewhile(lambda token: token < vocabulary.text_size, drawn))
  return words, drawn[len(words)] if len(words) < len(drawn) else None


def unguided(sampling: SamplingSettings) -> SamplingSettings:
  """Of text, which there is none to be guided away from."""
  return dataclasses.replace(sampling, guidance=1.0)


def part_keys(keys: Array, number: int) -> Array:
  """The keys (B,) of the text or the image of this number in an answer."""
  return jax.vmap(lambda key: fold(key, Stream.ANSWER_PARTS, number))(keys) if number else keys
