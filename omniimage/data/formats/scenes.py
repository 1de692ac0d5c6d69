"""The built-in scenes, drawn as PNG: `scenes`, or `scenes:GRID:RECORDS:PIXELS`, of which the last may be left out."""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import Image

from omniimage.data.formats.format import Given, Row, Unit
from omniimage.data.formats.survey import Survey
from omniimage.data.records import captioned
from omniimage.data.scenes.captions import caption
from omniimage.data.scenes.world import GRIDS, MIN_CELL, render, scene_of
from omniimage.errors import UserError

DEFAULTS = (2, 10_000, 32)  # cells a side, records of train, pixels a side
TEST_SHARE = 20  # one record of test for so many of train
MAX_OBJECTS = 4
UNIT_ROWS = 1024
PHRASINGS = 4  # captions drawn for a scene


def fits(survey: Survey) -> bool:
  return survey.source.split(":")[0] == "scenes"


def open_scenes(source: str, given: Given) -> "Scenes":
  """UserError where there are no such scenes."""
  words = source.split(":")[1:]
  if len(words) > len(DEFAULTS) or not all(word.isascii() and word.isdigit() for word in words):
    raise UserError(f"{source!r} is no built-in source; expected scenes:GRID:RECORDS:PIXELS, as scenes:2:10000:32")
  grid, records, pixels = (*map(int, words), *DEFAULTS[len(words) :])
  if grid not in GRIDS or not 1 <= records <= 2**30 or not MIN_CELL * grid <= pixels <= 2**12:
    raise UserError(
      f"{source!r}: the grid must be one of {', '.join(map(str, GRIDS))}, records 1 to {2**30}, and pixels at least "
      f"{MIN_CELL} a cell and at most {2**12}"
    )
  return Scenes(grid, records, pixels)


class Scenes:
  """Units are ranges of records."""

  def __init__(self, grid: int, records: int, pixels: int):
    self._grid, self._pixels = grid, pixels
    self._records = {"train": records, "test": -(-records // TEST_SHARE)}

  def found(self) -> str:
    return f"scenes on a {self._grid}×{self._grid} grid, {self._pixels} pixels"

  def units(self) -> Sequence[Unit]:
    return ranges(self._records)

  def rows(self, unit: Unit) -> Iterator[Row]:
    split, start, stop = unit.content
    for index in range(start, stop):
      scene = scene_of(index, split, grid=self._grid, min_objects=1, max_objects=MAX_OBJECTS)
      key = f"scenes:{self._grid}/{split}/{index}"
      captions = alternatives(lambda rng, scene=scene: caption(scene, rng), index)
      yield Row(key, captioned(key, captions, png(render(scene, self._pixels))), split=split)

  def fingerprint(self) -> str:
    return hashlib.sha256(repr((self._grid, self._pixels, self._records)).encode()).hexdigest()


def ranges(records: dict[str, int]) -> list[Unit]:
  """Units (split, start, stop) of so many records of each split."""
  return [
    Unit(f"{split}:{start}", (split, start, min(start + UNIT_ROWS, count)), min(UNIT_ROWS, count - start))
    for split, count in records.items()
    for start in range(0, count, UNIT_ROWS)
  ]


def alternatives(draw: Callable[[np.random.Generator], str], index: int) -> list[str]:
  """Some captions that `draw` gives, each once, the same ones for an index."""
  rng = np.random.default_rng(index)
  return list(dict.fromkeys(draw(rng) for _ in range(PHRASINGS)))


def png(pixels: np.ndarray) -> bytes:
  """Of (H,W,3) uint8."""
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "PNG")
  return file.getvalue()
