"""Pictures in the cells of a terminal: each cell is "▀", its upper half one pixel and its lower half the next below.

Colors are 24-bit ones (ISO 8613-6), which a terminal says it has by COLORTERM.
"""

import os
from collections.abc import Mapping
from typing import TextIO

import numpy as np
from PIL import Image

UPPER, RESET = "▀", "\x1b[0m"
COLUMNS, ROWS = 48, 48  # pixels of a picture at most, a cell is as high as two


def can_show(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
  """Whether what is written there is seen in such colors, and colors are not unwanted (no-color.org)."""
  colors = environment.get("COLORTERM", "").lower() in ("truecolor", "24bit")
  encoding = (stream.encoding or "").lower().replace("-", "")
  return stream.isatty() and colors and not environment.get("NO_COLOR") and encoding == "utf8"


def lines(pixels: np.ndarray, columns: int = COLUMNS, rows: int = ROWS) -> list[str]:
  """A picture (H, W, 3) uint8 as lines to print, of no more than so many columns and half as many lines as rows. Larger
  ones are reduced; none is enlarged."""
  picture = Image.fromarray(pixels)
  scale = min(1.0, columns / picture.width, rows / picture.height)
  size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
  small = np.asarray(picture.resize(size, Image.Resampling.BOX))
  return ["".join(map(_cell, upper, lower)) + RESET for upper, lower in zip(small[::2], _below(small))]


def _below(small: np.ndarray) -> list:
  """The lower row of each line; below an odd last one there is nothing."""
  return [*small[1::2], *([[None] * small.shape[1]] * (len(small) % 2))]


def _cell(upper: np.ndarray, lower: np.ndarray | None) -> str:
  back = "49" if lower is None else f"48;2;{lower[0]};{lower[1]};{lower[2]}"
  return f"\x1b[38;2;{upper[0]};{upper[1]};{upper[2]};{back}m{UPPER}"
