"""Images of many conversations, drawn at once and event by event: each is the one that its own session draws.

The batch's own steps (`omniimage.sampling.generate.draw_prompts`) in pieces: a row of codes of all of them, a chunk of
all of them. Between two pieces nothing is computed before it is asked for.

Axes: B conversations, P their padded length, h × w visual tokens, H × W pixels.
"""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
from jax import Array

from omniimage.models.adapter import InputFeatures
from omniimage.models.omni import Omni, Params
from omniimage.sampling.events import Chunk, Codes, Image
from omniimage.sampling.kept import Kept
from omniimage.sampling.pieces import Pieces
from omniimage.settings import SamplingSettings


@dataclasses.dataclass(frozen=True)
class Prompts:
  """Conversations up to where the codes of their images begin.

  Attributes:
    tokens: (B, P), padded on the right.
    lengths: (B,).
    features: of the images that the user shows in them, if the prior reads them.
  """

  tokens: np.ndarray
  lengths: np.ndarray
  features: InputFeatures | None = None


@dataclasses.dataclass(frozen=True)
class Together:
  """How a model draws them. `keys` (B,), one an image; `kept` is what stays of pictures that are drawn again."""

  omni: Omni
  pieces: Pieces
  params: Params
  keys: Array
  sampling: SamplingSettings
  kept: Kept | None = None

  def events(self, prompts: Prompts, bare: Prompts) -> Iterator[list[Codes | Chunk | Image]]:
    """Of each step the B events. `bare` is what guidance compares the prompts with, padded as these."""
    size = self.omni.settings.buckets[0]
    written, hidden = self._read(prompts, bare)
    grid, codes = (size.rows, size.columns), []
    for first in range(0, size.tokens, size.columns):
      given = None if self.kept is None else self.kept.tokens(self.omni.vocabulary, first, size.columns)
      written, drawn = self.pieces.next_codes(
        self.params, written, np.int32(prompts.tokens.shape[1]), np.int32(first), self.keys, given,
        count=size.columns, sampling=self.sampling,
      )  # fmt: skip
      codes.append(np.asarray(drawn) - self.omni.vocabulary.codes)
      yield [Codes(first, own, grid) for own in codes[-1]]
    del written
    yield from self._paint(prompts, hidden, np.stack(codes, axis=1))

  def _read(self, prompts: Prompts, bare: Prompts):
    """The sequences, twice as many with the guidance of the prior, and the prompts' states (B, P, D)."""
    read = prompts.tokens, prompts.lengths, prompts.features
    if self.sampling.guidance != 1:
      beside = bare.tokens, bare.lengths, bare.features
      read = jax.tree.map(lambda *both: np.concatenate(both), read, beside)
    count = self.omni.settings.buckets[0].tokens
    written, hidden = self.pieces.begin_codes(self.params, *read, count=count)
    return written, hidden[: len(prompts.tokens)]

  def _paint(self, prompts: Prompts, hidden: Array, codes: np.ndarray) -> Iterator[list[Chunk | Image]]:
    """Paints codes (B, h, w)."""
    pieces, size = self.pieces, self.omni.settings.buckets[0]
    canvas, rendering = pieces.begin_canvas(
      self.params, prompts.tokens, prompts.lengths, hidden, codes, sampling=self.sampling
    )
    pixels = np.empty((len(codes), *size.pixels, 3), np.float32)
    for chunk in range(canvas.layout.count):
      canvas, painted = pieces.next_chunk(
        self.params, canvas, np.int32(chunk), self.keys, self.kept, sampling=self.sampling
      )
      events = [Chunk(own, canvas.place(chunk, size), size.pixels) for own in np.asarray(painted)]
      for event, image in zip(events, pixels):
        event.put_on(image)
      yield events
    yield [Image(*of_one) for of_one in zip(codes, np.asarray(rendering), pixels)]
