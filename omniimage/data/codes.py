"""Codes of a prepared data set's images, made once by a trained tokenizer: the folder that `data.codes` names.

It is a prepared folder itself (`omniimage/data/prepared.py`), of the same records in the same order, with the same
index, so that its batches are those of the images, record for record. In place of each encoded image it holds that
image's codes, or why there are none:

  b"c", bytes a code, variants, rows, columns; the codes, little-endian, variant after variant, each in raster order
  b"!", the reason in UTF-8

Its dataset.json has an entry "codes", what they were made of and by. Axes: V variants of an image, h × w codes.
"""

import dataclasses
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import logging

from omniimage.commands import command
from omniimage.data.records import BadRecord
from omniimage.errors import UserError

if TYPE_CHECKING:
  from omniimage.data.prepared import Prepared

# Records of codes are packed some at a time (`omniimage/prepare/tokenize.py`), which the library takes for a mistake.
logging.get_absl_logger().addFilter(lambda record: "Grain requires group size" not in str(record.msg))

CODES, REASON = b"c", b"!"
HEADER = struct.Struct("<cBHHH")
TYPES = {2: np.dtype("<u2"), 4: np.dtype("<u4")}  # by bytes a code
DESCRIBED = "codes"  # in dataset.json
AGAIN = f"make codes again: {command('prepare')} --source=PREPARED --tokenize=WORKDIR --out=FOLDER"


@dataclass(frozen=True)
class Made:
  """What codes were made of and by.

  Attributes:
    prepared: fingerprint of the prepared data set.
    tokenizer: fingerprint of the tokenizer's parameters.
    settings: of the run, that say what the tokenizer is shown and how it reads it.
    variants: of each image, by name.
  """

  prepared: str
  tokenizer: str
  settings: Mapping[str, Any]
  variants: tuple[str, ...]


@dataclass(frozen=True)
class StoredCodes:
  """A folder of codes that has been opened."""

  folder: "Prepared"
  made: Made

  @classmethod
  def open(cls, path: Path) -> "StoredCodes":
    """UserError where there is none, or it is unfinished or not as it was made."""
    from omniimage.data.prepared import Prepared  # and what reads the shards

    folder = Prepared.open(path)
    if not holds_codes(folder):
      raise UserError(
        f"{path} holds images, not codes; make those with {command('prepare')} --source={path} --tokenize=WORKDIR "
        "--out=ANOTHER_FOLDER"
      )
    try:
      made = Made(**folder.description[DESCRIBED])
      return cls(folder, dataclasses.replace(made, variants=tuple(made.variants)))
    except TypeError as error:
      raise UserError(f"{path}: its dataset.json is damaged ({error}); make the codes again") from None

  def check(self, settings: Mapping[str, Any]):
    """UserError unless a run with such settings would make the same codes."""
    differ = [
      f"{name} {self.made.settings.get(name)} there and {value} here"
      for name, value in settings.items()
      if self.made.settings.get(name) != value
    ]
    if differ:
      raise UserError(f"{self.folder.path} was made with other settings: {'; '.join(differ)}; {AGAIN}")

  def check_records(self, prepared: "Prepared"):
    """UserError unless these are the codes of that data set."""
    if self.made.prepared != prepared.fingerprint:
      raise UserError(f"{self.folder.path} does not hold the codes of {prepared.path}, of other records; {AGAIN}")


def holds_codes(folder: "Prepared") -> bool:
  """Whether a prepared folder is one of codes."""
  return DESCRIBED in folder.description


def described(made: Made) -> dict[str, Any]:
  """The entry of dataset.json."""
  return {DESCRIBED: dataclasses.asdict(made)}


def to_bytes(codes_Vhw: np.ndarray, codebook: int) -> bytes:
  """As they are stored, in as few bytes as codes below `codebook` need."""
  width = 2 if codebook <= 2**16 else 4
  return HEADER.pack(CODES, width, *codes_Vhw.shape) + codes_Vhw.astype(TYPES[width]).tobytes()


def why_none(reason: str) -> bytes:
  """What is stored of an image that has no codes."""
  return REASON + reason.encode("utf-8", "replace")


def from_bytes(stored: bytes) -> np.ndarray:
  """Codes (V, h, w) int32. BadRecord says why there are none."""
  if stored[:1] == REASON:
    raise BadRecord(stored[1:].decode("utf-8", "replace"))
  try:
    kind, width, *shape = HEADER.unpack_from(stored)
    if kind != CODES:
      raise ValueError(f"they begin with {kind!r}")
    return np.frombuffer(stored, TYPES[width], offset=HEADER.size).reshape(shape).astype(np.int32)
  except (struct.error, KeyError, ValueError) as error:
    raise BadRecord(f"no codes of an image: {error}") from None
