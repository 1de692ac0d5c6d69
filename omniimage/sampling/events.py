"""What comes of a session, as it comes.

Nothing that was given is revised: texts, codes and chunks only follow on one another. An answer is texts and images,
one after another. A text is its words, then itself. An image is all of its codes, in raster order, then all of its
chunks, from the top and each row of them from the left, then itself. Arrays are NumPy's, and the receiver's to keep.

Axes: h × w visual tokens, H × W pixels.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from omniimage.data.conversation import ImageTurn, TextTurn, Turn


@dataclass(frozen=True)
class Text:
  """The next words; whole characters."""

  text: str


@dataclass(frozen=True)
class TextEnd:
  """The text is finished: all of it, and whether the model ended there, began an image, or had no more room."""

  text: str
  reason: Literal["eos", "image", "length"]


@dataclass(frozen=True, eq=False)
class Codes:
  """The next codes, (n,) int32, of which the first is number `first` of the `grid` = (h, w)."""

  first: int
  codes: np.ndarray
  grid: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Chunk:
  """The next finished pixels, float32 in [-1, 1]; `place` = (top, left) of a canvas of `size` = (H, W)."""

  pixels: np.ndarray
  place: tuple[int, int]
  size: tuple[int, int]

  def put_on(self, canvas: np.ndarray):
    """Onto a picture (H, W, 3) of the canvas."""
    (top, left), (rows, columns, _) = self.place, self.pixels.shape
    canvas[top : top + rows, left : left + columns] = self.pixels


@dataclass(frozen=True, eq=False)
class Image:
  """An image is finished.

  Attributes:
    codes: (h, w) int32.
    rendering: (H', W', 3) of the tokenizer's own decoder, in the size it reads, in [-1, 1].
    pixels: (H, W, 3) of the diffusion decoder, in [-1, 1].
  """

  codes: np.ndarray
  rendering: np.ndarray
  pixels: np.ndarray


Event = Text | TextEnd | Codes | Chunk | Image


def to_uint8(pixels: np.ndarray) -> np.ndarray:
  """Pixels in [-1, 1], as events have them, as uint8."""
  return np.round((np.nan_to_num(pixels).clip(-1, 1) + 1) * 127.5).astype(np.uint8)


def turns_of(events: Iterable[Event]) -> list[Turn]:
  """What an answer says and shows, the assistant's parts: texts that are not empty, and images in pixels."""
  turns = []
  for event in events:
    if isinstance(event, TextEnd) and event.text:
      turns.append(TextTurn(event.text, is_target=True))
    elif isinstance(event, Image):
      turns.append(ImageTurn(to_uint8(event.pixels), is_target=True))
  return turns
