"""A conversation as far as it has been read, from the host's side: which tokens lie on the device, and what to read."""

from collections.abc import Sequence

import numpy as np
from jax import Array

from omniimage.data.conversation import Encoded
from omniimage.models.omni import Omni, Params
from omniimage.sampling.pieces import Pieces
from omniimage.sampling.prompts import to_float
from omniimage.sampling.reading import Rows
from omniimage.settings import SamplingSettings
from omniimage.streams import Stream

# Axes: N tokens, I images, h × w visual tokens.

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
    self._encoded: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # images by identity, so that they must be kept

  def place_images(self, encoded: Encoded) -> np.ndarray:
    """The tokens (N,) of a conversation, its images' codes in their places. An image is encoded once."""
    new = [image for image in encoded.images if id(image) not in self._encoded]
    for image, codes in zip(new, codes_of(self._pieces, self.params, new)):
      self._encoded[id(image)] = image, codes
    return place_codes(encoded, [self._encoded[id(image)][1] for image in encoded.images], self._omni.vocabulary.codes)

  def read(self, tokens: np.ndarray):
    """Has read exactly these tokens (N,) afterwards; of them, those behind what is common are read now."""
    start = common(self.tokens, tokens)
    if start < len(tokens):
      new, room = self._padded(tokens[start:]), len(tokens)
      self._reserve(start + new.shape[1])
      rows = self._taken()
      self.rows = self._pieces.read(self.params, rows, new, np.int32(start), np.array([room], np.int32))
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
    new = self._padded(tokens[start:])
    self._reserve(max(len(self.tokens) + room, start + new.shape[1]))
    return self._pieces.read_beside(self.params, self.rows, new, np.int32(start), np.array([len(tokens)], np.int32))

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

  def _padded(self, tokens: np.ndarray) -> np.ndarray:
    """(1, P)."""
    return np.pad(tokens, (0, bucket(len(tokens), READ) - len(tokens)), constant_values=self._omni.vocabulary.pad)[None]

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


def codes_of(pieces: Pieces, params: Params, images: Sequence[np.ndarray]) -> list[np.ndarray]:
  """Codes (h, w) of images (H, W, 3) uint8, encoded in one batch, or codes as they are."""
  pixels = [image for image in images if image.ndim == 3]
  if not pixels:
    return list(images)
  padded = pixels + pixels[:1] * (bucket(len(pixels), 1) - len(pixels))
  encoded = iter(np.asarray(pieces.encode(params, to_float(np.stack(padded)))))
  return [next(encoded) if image.ndim == 3 else image for image in images]


def place_codes(encoded: Encoded, codes: Sequence[np.ndarray], first_code: int) -> np.ndarray:
  """Tokens (N,) of a conversation with the codes of its images in their places."""
  tokens = encoded.tokens.copy()
  for own, start in zip(codes, encoded.image_starts):
    tokens[start : start + own.size] = first_code + own.ravel()
  return tokens


def common(read: np.ndarray, tokens: np.ndarray) -> int:
  """How many tokens two sequences begin with in common."""
  n = min(len(read), len(tokens))
  differs = np.flatnonzero(read[:n] != tokens[:n])
  return int(differs[0]) if len(differs) else n
