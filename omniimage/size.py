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


def in_pixels(named: str) -> tuple[int, int] | None:
  """Width and height of a size that is named by its pixels, as "128x64"; None if it is not."""
  found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", named)
  return (int(found[1]), int(found[2])) if found else None


@functools.lru_cache(maxsize=1024)
def size_of(named: str, side: int, pixels_per_token: int) -> Size:
  """The size of images of so many pixels, as "128x64" (width, height), or of a width:height, as "4:3", of about as many
  pixels as a square of that side, in whole visual tokens. SettingsError where it is neither."""
  if exact := in_pixels(named):
    width, height = exact
    require(
      min(exact) > 0 and width % pixels_per_token == height % pixels_per_token == 0,
      f"{named!r}: width and height must be multiples of the {pixels_per_token} pixels of a visual token",
    )
    return Size(height // pixels_per_token, width // pixels_per_token, pixels_per_token)
  found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?):(\d{1,6}(?:\.\d{1,6})?)", named)
  width, height = map(float, found.groups()) if found else (0.0, 0.0)
  require(
    min(width, height) > 0 and max(width, height) <= LONGEST * min(width, height),
    f"{named!r} is no aspect ratio; give width:height, as 4:3 or 9:16, up to {LONGEST}:1, or pixels, as 128x64",
  )
  rows, columns = (
    max(1, round(side * math.sqrt(ratio) / pixels_per_token)) for ratio in (height / width, width / height)
  )
  return Size(rows, columns, pixels_per_token)
