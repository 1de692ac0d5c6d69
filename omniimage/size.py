"""The size of images. A batch has one, and so has each compiled step: the sizes of a run are its buckets."""

import dataclasses
import functools
import math
import re

from omniimage.errors import require

LONGEST = 32  # times the short side


@dataclasses.dataclass(frozen=True)
class Size:
  """Images of rows × columns visual tokens, each of which stands for `pixels_per_token` pixels along one side."""

  rows: int
  columns: int
  pixels_per_token: int

  @property
  def tokens(self) -> int:
    """Visual tokens of an image."""
    return self.rows * self.columns

  @property
  def pixels(self) -> tuple[int, int]:
    """Height and width."""
    return self.rows * self.pixels_per_token, self.columns * self.pixels_per_token

  @property
  def side(self) -> int:
    """Pixels along one side of what can only be square. ValueError where it is not."""
    height, width = self.pixels
    if height != width:
      raise ValueError(f"images of {height}×{width} pixels; expected as many along both sides")
    return height

  def patches(self, patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches of so many pixels along one side."""
    height, width = self.pixels
    return height // patch_size, width // patch_size


@functools.lru_cache(maxsize=1024)
def size_of(aspect_ratio: str, side: int, pixels_per_token: int) -> Size:
  """The size of images of a width:height, as "4:3", of about as many pixels as a square of that side, in whole visual
  tokens. SettingsError where it is no such ratio."""
  found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?):(\d{1,6}(?:\.\d{1,6})?)", aspect_ratio)
  width, height = map(float, found.groups()) if found else (0.0, 0.0)
  require(
    min(width, height) > 0 and max(width, height) <= LONGEST * min(width, height),
    f"{aspect_ratio!r} is no aspect ratio; give width:height, as 4:3 or 9:16, up to {LONGEST}:1",
  )
  rows, columns = (
    max(1, round(side * math.sqrt(ratio) / pixels_per_token)) for ratio in (height / width, width / height)
  )
  return Size(rows, columns, pixels_per_token)
