import math

import pytest

from omniimage.errors import SettingsError
from omniimage.size import Size, size_of


def test_rows_are_of_the_height_and_columns_of_the_width():
  wide = Size(rows=2, columns=3, pixels_per_token=8)
  assert (wide.tokens, wide.pixels, wide.patches(4)) == (6, (16, 24), (4, 6))
  assert Size(2, 2, 8).side == 16
  with pytest.raises(ValueError, match="images of 16×24 pixels; expected as many along both sides"):
    _ = wide.side


@pytest.mark.parametrize(
  ("ratio", "side", "rows", "columns"),
  [
    ("1:1", 64, 8, 8),
    ("4:3", 64, 7, 9),
    ("3:4", 64, 9, 7),
    ("16:9", 256, 24, 43),
    ("1.91:1", 256, 23, 44),
    ("16:16", 64, 8, 8),
    ("32:1", 16, 1, 11),
  ],
)
def test_a_ratio_is_width_to_height_of_about_as_many_pixels(ratio, side, rows, columns):
  size = size_of(ratio, side, 8)
  assert (size.rows, size.columns) == (rows, columns)
  if side == 256:
    assert math.prod(size.pixels) == pytest.approx(side**2, rel=0.02)


def test_a_size_may_be_given_in_pixels_width_first():
  assert size_of("128x64", 256, 8) == Size(8, 16, 8)
  with pytest.raises(SettingsError, match="multiples of the 8 pixels of a visual token"):
    size_of("4x3", 64, 8)


@pytest.mark.parametrize("ratio", ["", "4", ":3", "4/3", "4x", "0:3", "-4:3", "4:3:2", "a:b", "1e3:1", "99:1", "4: 3"])
def test_what_is_no_ratio_is_one_line(ratio):
  with pytest.raises(SettingsError, match="is no aspect ratio; give width:height, as 4:3 or 9:16, up to 32:1"):
    size_of(ratio, 64, 8)
