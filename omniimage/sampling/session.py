"""A session: one conversation and how it goes on, event by event, as the batch would have drawn it.

The device computes in pieces: some tokens of text, a row of codes, a chunk. Each piece is a pure function that is
compiled once for each length of conversation (in buckets) and sampling settings, and shared by all sessions of a
generator; so sessions may take turns on one device. Between pieces a session rests: nothing is computed before the
next event is asked for.

Axes: B = 1 conversation (2 with the guidance of the prior), P padded prompt length, h × w visual tokens, H × W pixels.
"""

import dataclasses
import functools
import itertools
import threading
from collections.abc import Generator, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from omniimage.data.conversation import Encoded
from omniimage.data.text import TextTokenizer
from omniimage.models.layers import unpatchify
from omniimage.models.omni import Omni, Params
from omniimage.sampling.autoregressive import Written, prefill, sample_tokens
from omniimage.sampling.diffusion import Canvas, blank, paint_chunk, text_conditions
from omniimage.sampling.events import Chunk, Codes, Event, Image, Text, TextEnd
from omniimage.sampling.prompts import BUCKET, input_features, pad, room_before_image, to_float, without_words
from omniimage.settings import SamplingSettings
from omniimage.streams import Stream

WORDS = 8  # tokens of text a piece
UNFINISHED = "\ufffd"  # what a text ends with while the bytes of its last character are not all there


class Pieces:
  """The compiled pieces of a model's sessions. What is carried from one to the next is donated."""

  def __init__(self, omni: Omni):
    def compiled(piece, static: tuple[str, ...] = (), **options):
      return jax.jit(functools.partial(piece, omni), static_argnames=static, **options)

    self.encode = compiled(encode)
    self.read = compiled(prefill, ("new_tokens",))
    self.next_words = compiled(next_words, ("new_tokens", "sampling"), donate_argnames="written")
    self.next_codes = compiled(next_codes, ("sampling",), donate_argnames="written")
    self.begin_canvas = compiled(begin_canvas, ("sampling",))
    self.next_chunk = compiled(next_chunk, ("sampling",), donate_argnames="canvas")


def encode(omni: Omni, params: Params, images: Array) -> tuple[Array, Array | None]:
  """Codes (B, h, w) of images (B, H, W, 3) in [-1, 1], and the features (B, h·w, D) that the prior reads of those that
  are input; None if it reads their codes alone."""
  encoded = omni.encode(params, omni.shrink(images))
  return encoded.codes, omni.adapt(params, encoded)


def next_words(
  omni: Omni,
  params: Params,
  written: Written,
  first: Array,
  keys: Array,
  *,
  new_tokens: int,
  sampling: SamplingSettings,
) -> tuple[Written, Array]:
  """The tokens number `first` and after, (B, WORDS), of a text that has room for `new_tokens`."""
  start, numbers = written.seen.shape[1] - new_tokens, first + jnp.arange(WORDS)
  return sample_tokens(omni, params, written, start, numbers, keys, sampling, stream=Stream.WORDS)


def next_codes(
  omni: Omni, params: Params, written: Written, row: Array, keys: Array, *, sampling: SamplingSettings
) -> tuple[Written, Array]:
  """A row of codes (B, w)."""
  size = omni.settings.buckets[0]
  start, numbers = written.seen.shape[1] - size.tokens, row * size.columns + jnp.arange(size.columns)
  written, tokens = sample_tokens(omni, params, written, start, numbers, keys, sampling, codes_only=True)
  return written, tokens - omni.vocabulary.codes


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
  """A canvas for codes (B, h, w) under the first B of the prompts, which were read as `hidden` (…, P, D), and the
  tokenizer's rendering (B, H, W, 3) of the codes."""
  B = codes.shape[0]
  conditions = text_conditions(omni, hidden[:B], tokens[:B], lengths[:B])
  features = omni.features(params, codes)
  return blank(omni, params, features, *conditions, sampling), jnp.clip(omni.render(params, features), -1, 1)


def next_chunk(
  omni: Omni, params: Params, canvas: Canvas, chunk: Array, keys: Array, *, sampling: SamplingSettings
) -> tuple[Canvas, Array]:
  """The pixels (B, rows, W, 3) of a chunk."""
  canvas, patches = paint_chunk(omni, params, canvas, chunk, keys, sampling)
  return canvas, jnp.clip(unpatchify(patches, omni.settings.decoder.patch_size, canvas.layout.columns), -1, 1)


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
class Answer:
  """How a model answers a conversation. `params` unstacked, `keys` (1,)."""

  omni: Omni
  pieces: Pieces
  params: Params
  text_tokenizer: TextTokenizer
  keys: Array
  sampling: SamplingSettings

  def events(self, encoded: Encoded, text_first: bool) -> Generator[Event, None, None]:
    """The assistant's turn in a conversation, `encoded` by `read_turns`: an image; with `text_first`, text, and an
    image only where the text begins one."""
    tokens, shown = self.read(encoded)
    if text_first:
      words, reason = yield from self.text(tokens, shown)
      if reason != "image":
        return
      tokens = np.concatenate([tokens, words])
    yield from self.image(tokens, shown)

  def read(self, encoded: Encoded) -> tuple[np.ndarray, np.ndarray | None]:
    """The conversation's tokens (N,) with its images' codes in their places, and the features (n, D) of all places of
    those that the user has shown; None where there are none, or the prior reads their codes alone."""
    tokens, shown = encoded.tokens.copy(), []
    for image, start, is_target in zip(encoded.images, encoded.image_starts, encoded.image_is_target):
      codes, features = self.pieces.encode(self.params, to_float(image[None]))
      tokens[start : start + codes.size] = self.omni.vocabulary.codes + np.asarray(codes).ravel()
      if features is not None and not is_target:
        shown.append(np.asarray(features)[0])
    return tokens, np.concatenate(shown) if shown else None

  def text(self, tokens: np.ndarray, shown: np.ndarray | None) -> Generator[Event, None, tuple[np.ndarray, str]]:
    """Writes text behind the tokens (N,), of `read`, while an image would still have room; returns its tokens and why
    it ended."""
    v, settings = self.omni.vocabulary, self.omni.settings
    room = room_before_image(settings) - len(tokens)
    prompts, lengths = pad([tokens], v)
    new_tokens = -(-(settings.data.sequence_length - prompts.shape[1] + BUCKET) // WORDS) * WORDS
    sampling = dataclasses.replace(self.sampling, guidance=1.0)  # there is no text to be guided away from
    features = input_features(prompts, shown, v)
    written, _ = self.pieces.read(self.params, prompts, lengths, new_tokens=new_tokens, features=features)
    ids, said, reason = [], "", "length"
    for first in range(0, room, WORDS):
      written, drawn = self.pieces.next_words(
        self.params, written, np.int32(first), self.keys, new_tokens=new_tokens, sampling=sampling
      )
      drawn = np.asarray(drawn)[0, : room - first].tolist()
      words = list(itertools.takewhile(lambda token: token < v.text_size, drawn))
      ids += words
      if len(words) < len(drawn):
        reason = "eos" if drawn[len(words)] == v.eos else "image"
        break
      text = self.text_tokenizer.decode(ids).rstrip(UNFINISHED)
      if text != said:
        yield Text(text.removeprefix(said))
        said = text
    text = self.text_tokenizer.decode(ids)
    if text != said:
      yield Text(text.removeprefix(said))
    yield TextEnd(text, reason)
    return np.asarray(ids, np.int32), reason

  def image(self, tokens: np.ndarray, shown: np.ndarray | None) -> Generator[Event, None, None]:
    """Draws the image that follows the tokens (N,), of `read`. They are read anew even where text was written behind
    them: that is one pass, gives the painter its text states, and makes it the drawing of a prompt that ended so."""
    omni, pieces, params, sampling = self.omni, self.pieces, self.params, self.sampling
    v, size = omni.vocabulary, omni.settings.buckets[0]
    forms = [tokens] if sampling.guidance == 1 else [tokens, without_words(tokens, v)]
    prompts, lengths = pad([[*form, *v.opening(size.rows, size.columns)] for form in forms], v)
    features = input_features(prompts, shown, v)
    written, hidden = pieces.read(params, prompts, lengths, new_tokens=size.tokens, features=features)
    codes = np.empty((size.rows, size.columns), np.int32)
    for row in range(size.rows):
      written, drawn = pieces.next_codes(params, written, np.int32(row), self.keys, sampling=sampling)
      codes[row] = np.asarray(drawn)[0]
      yield Codes(row * size.columns, codes[row].copy(), codes.shape)
    del written
    canvas, rendering = pieces.begin_canvas(params, prompts, lengths, hidden, codes[None], sampling=sampling)
    pixels = np.empty((*size.pixels, 3), np.float32)
    for chunk in range(canvas.layout.count):
      canvas, painted = pieces.next_chunk(params, canvas, np.int32(chunk), self.keys, sampling=sampling)
      own = np.asarray(painted)[0]
      top = chunk * len(own)
      pixels[top : top + len(own)] = own
      yield Chunk(own, (top, 0), size.pixels)
    yield Image(codes, np.asarray(rendering)[0], pixels)
