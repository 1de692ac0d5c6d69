"""Contact sheets: every picture in its place, whole and sharp."""

import numpy as np
import pytest

from omniimage.evaluation import sheets
from omniimage.evaluation.sheets import sheet, to_uint8


def flat(*colors, size: int = 32) -> np.ndarray:
  return np.broadcast_to(np.uint8(colors)[:, None, None], (len(colors), size, size, 3))


def where(canvas: np.ndarray, color) -> tuple[int, int, int, int]:
  """Top, left, height and width of all that has one color; it must fill that rectangle."""
  rows, columns = np.nonzero((canvas == np.uint8(color)).all(-1))
  top, left, height, width = rows.min(), columns.min(), np.ptp(rows) + 1, np.ptp(columns) + 1
  assert height * width == len(rows)
  return top, left, height, width


def test_floats_become_the_bytes_they_stand_for():
  values = np.float32([-1, 0, 1, 1.5, -9, np.nan, np.inf])
  assert to_uint8(values).tolist() == [0, 128, 255, 255, 0, 128, 255]
  every = np.arange(256, dtype=np.uint8)
  assert (to_uint8(every) == every).all() and (to_uint8(every / 127.5 - 1) == every).all()


def test_small_pictures_of_several_columns_stand_in_rows_enlarged_by_whole_factors():
  colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)]
  columns = {"true": flat(*colors[:2]), "painted": flat(*colors[2:], size=16)}
  canvas = np.asarray(sheet(columns, ["one", "two"]))
  places = [where(canvas, color) for color in colors]
  assert all(place[2:] == (128, 128) for place in places)
  (first, left, *_), (second, *_), (painted, right, *_), _ = places
  assert second - first == 128 + sheets.GAP and painted == first and right - left == 128 + sheets.GAP


def test_a_picture_keeps_its_pixels():
  pixels = np.random.default_rng(0).integers(256, size=(2, 32, 32, 3), dtype=np.uint8)
  canvas = np.asarray(sheet({"true": pixels, "painted": pixels[::-1]}, ["", ""]))
  top, left = sheets.MARGIN + sheets.LINE + sheets.TEXT_GAP, sheets.MARGIN + sheets.CAPTION_WIDTH + 2 * sheets.GAP
  assert (canvas[top : top + 128, left : left + 128][::4, ::4] == pixels[0]).all()


def test_one_column_becomes_a_grid():
  colors = [(40 * i + 20, 7, 99) for i in range(5)]
  canvas = np.asarray(sheet({"drawn": flat(*colors)}, ["a red star"] * 5))
  tops, lefts = zip(*(where(canvas, color)[:2] for color in colors))
  assert len(set(tops)) == 2 and len(set(lefts)) == 3


def test_a_long_caption_makes_its_row_taller_and_never_reaches_the_pictures():
  columns = {"true": flat((9, 9, 9), (8, 8, 8)), "painted": flat((7, 7, 7), (6, 6, 6))}
  short, tall = (np.asarray(sheet(columns, [caption, "two"])) for caption in ("one", "word " * 80 + "x" * 300))
  assert tall.shape[1] == short.shape[1] and tall.shape[0] > short.shape[0]
  beside = slice(sheets.MARGIN + sheets.CAPTION_WIDTH + 1, sheets.MARGIN + sheets.CAPTION_WIDTH + 2 * sheets.GAP - 1)
  assert (tall[:, beside] == 255).all() and (tall[:, : sheets.MARGIN // 2] == 255).all()


def test_large_pictures_are_not_shrunk_and_small_ones_beside_them_grow_to_their_size():
  canvas = np.asarray(sheet({"small": flat((9, 9, 9), size=64), "large": flat((7, 7, 7), size=256)}, ["one"]))
  assert where(canvas, (9, 9, 9))[2:] == where(canvas, (7, 7, 7))[2:] == (256, 256)


@pytest.mark.parametrize("columns, captions", [({}, ["one"]), ({"true": flat((0, 0, 0))}, ["one", "two"])])
def test_columns_that_do_not_match_the_captions_are_refused(columns, captions):
  with pytest.raises(ValueError, match="expected as many of each"):
    sheet(columns, captions)
