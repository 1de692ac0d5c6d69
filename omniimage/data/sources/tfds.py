"""A data set of TFDS as it lies on disk, without TensorFlow; what becomes of it, `omniimage.data.formats.tfds` says.

What packing asks for is not kept in such data sets. So all examples are read once, before the first batch: the texts
are counted, of the pictures the header is looked at. What was found is kept in the user's cache.

A data set without a train or without a test split is divided by a hash of its pictures, as `launch.prepare` does it.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import logging

from omniimage.data.conversation import Tokenizer
from omniimage.data.images import BadImage, upright_size
from omniimage.data.records import BadRecord, Picture, Record, Text, turn_tokens
from omniimage.data.sources.source import SPLITS
from omniimage.data.sources.stored import StoredSettings, StoredSource
from omniimage.errors import UserError, require
from omniimage.files import finish
from omniimage.size import Size

if TYPE_CHECKING:
  from omniimage.data.formats.format import Format, Row, Unit

HELD_OUT = 0.05  # share of the pictures, where the data set does not say which
TABLE = np.dtype([
  ("text_tokens", "<i4"), ("images", "<u2"), ("height", "<u4"), ("width", "<u4"),
  ("turn_tokens", "<i4"),
  ("unit", "<i4"), ("place", "<i4"),  # of the format's units, and in that
  ("test", "?"),
])  # fmt: skip
VERSION = 2  # of what a table holds


@dataclass(frozen=True)
class TfdsSettings(StoredSettings):
  dataset: str  # "coco_captions", "cifar10:3.0.2" or a directory
  mapping: tuple[
    str, ...
  ]  # "captions/text=user", "image=assistant": what each feature is; () is the recipe of its name


@dataclass(frozen=True)
class TfdsSplit:
  """The records of a split. A table is an array, or the file that it lies in."""

  format: "Format"
  units: "tuple[Unit, ...]"
  table: Path | np.ndarray

  def index(self) -> np.ndarray:
    return _loaded(self.table) if isinstance(self.table, Path) else self.table

  def text_tokens(self, text_tokenizer: Tokenizer) -> np.ndarray:
    return self.index()["text_tokens"]  # the table is of this vocabulary

  def read(self, index: int) -> Record:
    row = self._row(index)
    if row.record is None:
      raise BadRecord(row.problem)
    return row.record

  def place(self, index: int) -> str:
    return self._row(index).key

  def _row(self, index: int) -> "Row":
    row = self.index()[index]
    unit = self.units[row["unit"]]
    split, start, _ = unit.content
    place = start + int(row["place"])
    return next(self.format.rows(dataclasses.replace(unit, content=(split, place, place + 1))))


def open_tfds(settings: TfdsSettings, split: str, sizes: Sequence[Size], text_tokenizer: Tokenizer) -> StoredSource:
  """A split of a data set on disk. UserError where there is none, or it cannot be read without TensorFlow."""
  from omniimage.data.formats import tfds
  from omniimage.data.formats.format import Given, mapping_of

  require(
    bool(settings.dataset),
    "data.source.dataset is empty; set config.data.source.dataset to a data set of TFDS, by its name or its directory",
  )
  try:
    opened = tfds.open_tfds(settings.dataset, Given(mapping=mapping_of(settings.mapping, "data.source.mapping")))
  except UserError as error:
    raise UserError(str(error).replace("--map", "config.data.source.mapping")) from None
  units = tuple(opened.units())
  table = _tables(opened, units, settings, text_tokenizer)[split]
  stored = TfdsSplit(opened, units, table)
  if len(stored.index()):
    return StoredSource(settings, stored, sizes, text_tokenizer)
  if split == "train":
    raise UserError(f"{settings.dataset} has no examples to train on; choose another data set")
  return StoredSource(settings, None, sizes, text_tokenizer, f"{settings.dataset} has no examples to evaluate on")


def _tables(
  opened: "Format", units: "Sequence[Unit]", settings: TfdsSettings, text_tokenizer: Tokenizer
) -> dict[str, Path | np.ndarray]:
  """The table of each split, made where it is not kept."""
  fingerprint = getattr(text_tokenizer, "fingerprint", "")
  named = [VERSION, HELD_OUT, opened.fingerprint(), opened.found(), settings.dataset, settings.mapping, fingerprint]
  name = hashlib.sha256(json.dumps(named).encode()).hexdigest()[:32]
  cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "omniimage"
  files = {split: cache / f"tfds-{name}-{split}.npy" for split in SPLITS}
  if fingerprint and all(_is_whole(file) for file in files.values()):
    return files
  table = _made(opened, units, settings.dataset, text_tokenizer)
  tables = {split: table[table["test"] == (split == "test")] for split in SPLITS}
  if fingerprint:
    try:
      for split, file in files.items():
        _keep(file, tables[split])
      return files
    except OSError as error:
      logging.warning("%s cannot be written (%s): %s will be read again", cache, error, settings.dataset)
  return tables


def _made(opened: "Format", units: "Sequence[Unit]", name: str, text_tokenizer: Tokenizer) -> np.ndarray:
  """(n,) of TABLE: all examples, in order. Those that are no record are there too, for training to list them."""
  from tqdm import tqdm

  print(f"{name}: counts the tokens of its texts and the sizes of its pictures, once", file=sys.stderr, flush=True)
  found = []
  with tqdm(total=sum(unit.rows for unit in units), unit="record", disable=not sys.stderr.isatty()) as bar:
    for number, unit in enumerate(units):
      for place, row in enumerate(opened.rows(unit)):
        facts = (0, 0, 0, 0, 0) if row.record is None else _facts(row.record, text_tokenizer)
        found.append((*facts, number, place, _is_held_out(row)))
        bar.update()
  return np.array(found, TABLE)


def _facts(record: Record, text_tokenizer: Tokenizer) -> tuple[int, int, int, int, int]:
  """Tokens, images, the size of the picture that decides the bucket, 0×0 where it cannot be read, and the tokens that
  begin and end turns."""
  parts = [(turn.role, part) for turn in record.turns for part in turn.content]
  texts = [part.texts for _, part in parts if isinstance(part, Text)]
  tokens = sum(max(len(text_tokenizer.encode(text)) for text in alternatives) for alternatives in texts)
  shown = [part.index for role, part in parts if isinstance(part, Picture) and role == "assistant"] or [-1]
  size = 0, 0
  if record.images:
    with contextlib.suppress(BadImage):
      size = upright_size(record.images[shown[-1]])
  return tokens, len(record.images), *size, turn_tokens(record.turns)


def _is_held_out(row: "Row") -> bool:
  """As the data set says, else by a hash of its first picture, or of its key."""
  if row.split is not None:
    return row.split == "test"
  what = row.record.images[0] if row.record and row.record.images else row.key.encode()
  return int.from_bytes(hashlib.sha256(what).digest()[:8], "little") < HELD_OUT * 2**64


def _keep(file: Path, table: np.ndarray):
  file.parent.mkdir(parents=True, exist_ok=True)
  unfinished = file.with_name(f"{file.name}.{os.getpid()}")  # another run may be at it too
  with unfinished.open("wb") as out:
    np.save(out, table)
  finish(unfinished, file)


def _is_whole(file: Path) -> bool:
  try:
    return _loaded(file).dtype == TABLE
  except (OSError, ValueError, EOFError):
    return False


@functools.lru_cache(maxsize=8)
def _loaded(file: Path) -> np.ndarray:
  return np.load(file, mmap_mode="r")
