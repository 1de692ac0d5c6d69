"""What of a picture the tokenizer is shown: each view becomes a variant of its codes."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from omniimage.data import images
from omniimage.data.images import Color
from omniimage.errors import UserError
from omniimage.size import Size

ZOOM = 1.25  # of a part: it is 4/5 as high and as wide as the whole


@dataclass(frozen=True)
class Look:
  """How a run looks at pictures: `images.decode`."""

  fit: str
  background: Color

  def at(self, encoded: bytes, size: Size) -> np.ndarray:
    return images.decode(encoded, size, self.fit, self.background)


View = Callable[[bytes, Size, Look, np.random.Generator], np.ndarray]


def whole(encoded: bytes, size: Size, look: Look, rng: np.random.Generator) -> np.ndarray:
  """As stages that read images see it."""
  return look.at(encoded, size)


def flipped(encoded: bytes, size: Size, look: Look, rng: np.random.Generator) -> np.ndarray:
  """Left and right exchanged; for pictures whose texts say neither."""
  return look.at(encoded, size)[:, ::-1]


def part(encoded: bytes, size: Size, look: Look, rng: np.random.Generator) -> np.ndarray:
  """A part of it, from anywhere."""
  larger = look.at(encoded, dataclasses.replace(size, pixels_per_token=math.ceil(ZOOM * size.pixels_per_token)))
  height, width = size.pixels
  top, left = (int(rng.integers(there - wanted + 1)) for there, wanted in zip(larger.shape, size.pixels))
  return larger[top : top + height, left : left + width]


REPEATABLE = ("part",)  # views that are others each time
VIEWS: dict[str, View] = {"whole": whole, "flipped": flipped, "part": part}


def check_variants(names: Sequence[str]) -> tuple[str, ...]:
  """The names of views, as they were typed. UserError where one is none, or is there twice for nothing."""
  if unknown := [name for name in names if name not in VIEWS]:
    raise UserError(f"--variants: {unknown[0]!r} is none; there are {', '.join(VIEWS)}")
  if not names:
    raise UserError(f"--variants is empty; give some of {', '.join(VIEWS)}")
  if twice := [name for name in set(names) - {*REPEATABLE} if names.count(name) > 1]:
    raise UserError(f"--variants: {twice[0]} is the same each time; give it once")
  return tuple(names)
