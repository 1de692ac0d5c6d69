"""A conversation as far as it has been read, from the host's side: which tokens lie on the device, and what to read."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax import Array

from omniimage.data.conversation import Encoded
from omniimage.models.adapter import InputFeatures
from omniimage.models.omni import Omni, Params
from omniimage.sampling.pieces import Pieces
from omniimage.sampling.prompts import input_features, to_float
from omniimage.sampling.reading import Rows
from omniimage.settings import SamplingSettings
from omniimage.streams import Stream

# Axes: N tokens, P of them that are read, padded, S places, h × w visual tokens, D prior width.

READ, PLACES = 16, 64  # the smallest buckets of what is read at once, and of what is kept
NOTHING = np.empty(0, np.int32)


def bucket(n: int, least: int) -> int:
  """The first of least · 1, 1½, 2, 3, 4, 6, … that is no less than n: few shapes, and at most a third of one unused."""
  while least < n:
    if 3 * least // 2 >= n:
      return 3 * least // 2
    least *= 2
  return least


class Context:
  """One conversation on the device, whose beginning is kept from one reading to the next.

  While a piece computes it holds nothing, for what is donated may be lost: it then reads anew.

  Attributes:
    params: what it was read with.
    tokens: (N,) that have been read or written, of which the device holds keys, values and states.
    rows: these, B = 1; None where nothing has been read.
  """

  def __init__(self, omni: Omni, pieces: Pieces, params: Params):
    self.params, self.tokens, self.rows = params, NOTHING, None
    self._omni, self._pieces = omni, pieces
    self._encoded: dict[int, tuple[np.ndarray, EncodedImage]] = {}  # images by identity, so that they must be kept
    self._shown: tuple[np.ndarray, ...] = ()  # features (h·w, D) of the images that the user shows, in their order

  def place_images(self, encoded: Encoded) -> np.ndarray:
    """The tokens (N,) of a conversation, its images' codes in their places; what is read from here on begins with them.
    An image is encoded once.

    Codes do not tell all that the prior may read of an image: what was read behind another one is forgotten."""
    new = [image for image in encoded.images if id(image) not in self._encoded]
    for image, own in zip(new, encode_images(self._pieces, self.params, new)):
      self._encoded[id(image)] = image, own
    images = [self._encoded[id(image)][1] for image in encoded.images]
    shown = shown_features(encoded, images)
    alike = common_images(self._shown, shown)
    if alike < len(shown):
      self.keep(int(encoded.image_starts[~encoded.image_is_target][alike]))
    self._shown = shown
    return place_codes(encoded, images, self._omni.vocabulary.codes)

  def read(self, tokens: np.ndarray):
    """Has read exactly these tokens (N,) afterwards; of them, those behind what is common are read now."""
    start = common(self.tokens, tokens)
    if start < len(tokens):
      (new, features), room = self._padded(tokens, start), len(tokens)
      self._reserve(start + new.shape[1])
      rows = self._taken()
      self.rows = self._pieces.read(self.params, rows, new, np.int32(start), np.array([room], np.int32), features)
    self.tokens = np.asarray(tokens, np.int32)

  def write(
    self, count: int, first: int, keys: Array, sampling: SamplingSettings, stream: Stream, codes_only: bool = False
  ) -> np.ndarray:
    """Draws the next tokens (count,), number `first` and after of a part, and has them behind the others."""
    read = self.tokens
    self._reserve(len(read) + count)
    lengths, start = np.array([len(read)], np.int32), np.int32(len(read) - first)
    self.rows, drawn = self._pieces.go_on(
      self.params, self._taken(), lengths, start, np.int32(first), keys,
      count=count, sampling=sampling, codes_only=codes_only, stream=stream,
    )  # fmt: skip
    drawn = np.asarray(drawn)[0]
    self.tokens = np.concatenate([read, drawn])
    return drawn

  def read_beside(self, tokens: np.ndarray, room: int) -> Rows:
    """Two rows with room for so many tokens more: this conversation and, of the same beginning, `tokens` (N,)."""
    start = min(common(self.tokens, tokens), len(tokens) - 1)
    new, features = self._padded(tokens, start)
    self._reserve(max(len(self.tokens) + room, start + new.shape[1]))
    lengths = np.array([len(tokens)], np.int32)
    return self._pieces.read_beside(self.params, self.rows, new, np.int32(start), lengths, features)

  def adopt(self, rows: Rows, tokens: np.ndarray):
    """Goes on with the first of `rows`, where `tokens` were written behind this conversation."""
    read = self.tokens
    self._taken()
    self.rows, self.tokens = self._pieces.first_row(rows), np.concatenate([read, tokens])

  def padded(self) -> np.ndarray:
    """The tokens in the places that they have on the device, (1, S)."""
    places = self.rows.states.shape[1]
    return np.pad(self.tokens, (0, places - len(self.tokens)), constant_values=self._omni.vocabulary.pad)[None]

  def keep(self, n: int):
    """Forgets all but the first `n` tokens."""
    self.tokens = self.tokens[:n]

  def _padded(self, tokens: np.ndarray, start: int) -> tuple[np.ndarray, InputFeatures | None]:
    """Those of a conversation's tokens (N,) that are behind place `start`, (1, P), and the features among them."""
    v, n = self._omni.vocabulary, len(tokens) - start
    padded = np.pad(tokens, (0, bucket(n, READ) - n), constant_values=v.pad)[None]
    features = input_features(padded, [self._shown], v)
    return padded[:, start:], features and InputFeatures(*(of_all[:, start:] for of_all in features))

  def _reserve(self, places: int):
    """Makes room for so many places on the device."""
    if self.rows is None:
      self.rows = self._pieces.blank_rows(self.params, places=bucket(places, PLACES))
    elif self.rows.states.shape[1] < places:
      tokens = self.tokens
      self.rows, self.tokens = self._pieces.grown(self._taken(), places=bucket(places, PLACES)), tokens

  def _taken(self) -> Rows:
    rows, self.rows, self.tokens = self.rows, None, NOTHING
    return rows


class EncodedImage(NamedTuple):
  """An image as the prior reads it.

  Attributes:
    codes: (h, w).
    features: (h·w, D) for where the user shows it; None where codes are all that is read or known of it.
  """

  codes: np.ndarray
  features: np.ndarray | None


def encode_images(pieces: Pieces, params: Params, images: Sequence[np.ndarray]) -> list[EncodedImage]:
  """Images (H, W, 3) uint8, encoded in one batch, or codes (h, w) as they are."""
  pixels = [image for image in images if image.ndim == 3]
  if not pixels:
    return [EncodedImage(codes, None) for codes in images]
  padded = pixels + pixels[:1] * (bucket(len(pixels), 1) - len(pixels))
  codes, features = pieces.encode(params, to_float(np.stack(padded)))
  features = [None] * len(padded) if features is None else np.asarray(features)
  encoded = map(EncodedImage, np.asarray(codes), features)
  return [next(encoded) if image.ndim == 3 else EncodedImage(image, None) for image in images]


def place_codes(encoded: Encoded, images: Sequence[EncodedImage], first_code: int) -> np.ndarray:
  """Tokens (N,) of a conversation with the codes of its images in their places."""
  tokens = encoded.tokens.copy()
  for image, start in zip(images, encoded.image_starts):
    tokens[start : start + image.codes.size] = first_code + image.codes.ravel()
  return tokens


def shown_features(encoded: Encoded, images: Sequence[EncodedImage]) -> tuple[np.ndarray, ...]:
  """Of a conversation with these images, the features of those that the user shows, as `input_features` takes them."""
  pairs = zip(images, encoded.image_is_target)
  return tuple(image.features for image, is_target in pairs if not is_target and image.features is not None)


def common(read: np.ndarray, tokens: np.ndarray) -> int:
  """How many tokens two sequences begin with in common."""
  n = min(len(read), len(tokens))
  differs = np.flatnonzero(read[:n] != tokens[:n])
  return int(differs[0]) if len(differs) else n


def common_images(read: Sequence[np.ndarray], shown: Sequence[np.ndarray]) -> int:
  """How many images, by their features, two conversations begin with in common."""
  alike = (one is other or np.array_equal(one, other) for one, other in zip(read, shown))
  return sum(itertools.takewhile(bool, alike))
