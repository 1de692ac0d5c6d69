import pytest

from omniimage.size import Size


def test_rows_are_of_the_height_and_columns_of_the_width():
  wide = Size(rows=2, columns=3, pixels_per_token=8)
  assert (wide.tokens, wide.pixels, wide.patches(4)) == (6, (16, 24), (4, 6))
  assert Size(2, 2, 8).side == 16
  with pytest.raises(ValueError, match="images of 16×24 pixels; expected as many along both sides"):
    _ = wide.side
