"""A drawing as it comes into being: what a viewer shows after each row of codes, and after each chunk.

Made of a session's events, while they come or of a list of them. Nothing is ever revised, neither a code that the prior
has written nor a chunk that the decoder has finished; so a frame only adds to the one before. Axes: H × W pixels.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from omniimage.sampling.events import Chunk, Codes, Event
from omniimage.sampling.generate import GRAY, Generator


def token_frames(generator: Generator, events: Iterable[Event]) -> Iterator[np.ndarray]:
  """The tokenizer's rendering (H, W, 3) of what is there of an image's codes: of none, and after each `Codes`.

  The tokenizer is given zeros for the codes that are missing, and their places are left gray.
  """
  codes = np.empty(0, np.int32)
  yield generator.preview(codes)
  for event in events:
    if isinstance(event, Codes):
      codes = np.concatenate([codes, event.codes])
      yield generator.preview(codes)


def chunk_frames(events: Iterable[Event]) -> Iterator[np.ndarray]:
  """The canvas (H, W, 3) of an image, gray where nothing is painted: before its first `Chunk`, and after each."""
  canvas = None
  for event in events:
    if isinstance(event, Chunk):
      if canvas is None:
        canvas = np.full((*event.size, 3), GRAY, np.float32)
        yield canvas.copy()
      event.put_on(canvas)
      yield canvas.copy()
