"""Parts: what the units of a source become, each by itself, before the shards are put together.

A part is five files of one number: the records, one after another; a table with a row of ROW each; their keys; the rows
that were dropped, in JSON lines; and, last, a summary, without which the part is not there.
"""

import functools
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omniimage.data import images, records
from omniimage.data.formats.format import Format, Row, Unit
from omniimage.data.prepared import INDEX, count_tokens
from omniimage.data.records import BadRecord, Picture, Record, Text, turn_tokens
from omniimage.data.text import TextTokenizer
from omniimage.errors import UserError
from omniimage.files import write_whole, writing_whole
from omniimage.paths import writing
from omniimage.prepare.tasks import Tell

ROW = np.dtype([
  ("offset", "<u8"),  # of the record in the part's file, in bytes
  ("length", "<u8"),
  ("test", "?"),
  ("content", "<u8", 2),  # a hash, of pictures and turns
  *INDEX.descr,
])  # fmt: skip
MOST_BYTES = 2**30  # of one record; protocol buffers end at twice that
REASONS = 50  # kinds of them that are counted apart


@dataclass(frozen=True)
class UnitTask:
  number: int
  unit: Unit

  @property
  def name(self) -> str:
    return self.unit.name


@dataclass(frozen=True)
class Part:
  folder: Path
  number: int

  @property
  def records(self) -> Path:
    return self.folder / f"{self.number:06d}.records"

  @property
  def table(self) -> Path:
    return self.folder / f"{self.number:06d}.npy"

  @property
  def keys(self) -> Path:
    return self.folder / f"{self.number:06d}.keys.jsonl"

  @property
  def dropped(self) -> Path:
    return self.folder / f"{self.number:06d}.dropped.jsonl"

  def summary(self) -> dict[str, Any] | None:
    """How many rows the unit had and how many were dropped for which reason; None before the part is whole."""
    try:
      return json.loads(self._summary.read_bytes())
    except (FileNotFoundError, ValueError):
      return None

  def finish(self, rows: int, reasons: Counter):
    write_whole(self._summary, json.dumps({"rows": rows, "reasons": reasons}).encode())

  @property
  def _summary(self) -> Path:
    return self.folder / f"{self.number:06d}.json"


def has_any(folder: Path) -> bool:
  """Whether a part in it is whole."""
  return any(re.fullmatch(r"\d{6,}", path.stem) for path in folder.glob("*.json"))


@dataclass(frozen=True)
class Converter:
  """Makes the part of a unit.

  Attributes:
    folder: of the parts.
    held_out: share of the pictures that are for tests, where the source does not say which.
  """

  format: Format
  folder: Path
  held_out: float

  def __call__(self, task: UnitTask, tell: Tell):
    part = Part(self.folder, task.number)
    if part.summary() is not None:
      return
    table, keys, reasons, offset, count = [], [], Counter(), 0, 0
    with writing(self.folder):
      with writing_whole(part.records) as stored, writing_whole(part.dropped) as dropped:
        for row in rows_of(self.format, task.unit):
          count += 1
          try:
            record = _checked(row)
            encoded, facts = records.to_bytes(record), examine(record)
          except (BadRecord, images.BadImage) as problem:
            reasons[kind(str(problem))] += 1
            dropped.write(dropped_line(row.key, str(problem)))
          else:
            stored.write(encoded)
            table.append((offset, len(encoded), is_held_out(row, self.held_out), content(record), *facts))
            keys.append(json.dumps(row.key))
            offset += len(encoded)
          tell(1)
      write_whole(part.keys, "\n".join(keys).encode())
      with writing_whole(part.table) as file:
        np.save(file, np.array(table, ROW))
      part.finish(count, Counter(dict(reasons.most_common(REASONS))))


def rows_of(source: Format, unit: Unit) -> Iterator[Row]:
  """UserError where a file cannot be read that should be."""
  try:
    yield from source.rows(unit)
  except OSError as error:
    raise UserError(
      f"{unit.name} cannot be read: {error.strerror or error}; mend that and run the same again"
    ) from None


def dropped_line(key: str, reason: str) -> bytes:
  return json.dumps({"key": key, "reason": reason}).encode() + b"\n"


def kind(problem: str) -> str:
  """What problems are counted under: their first words, whatever the numbers."""
  return re.sub(r"\d[\d.,]*", "N", problem.partition(":")[0].strip())


def _checked(row: Row) -> Record:
  """The record of a row. BadRecord where it has none."""
  if row.record is None:
    raise BadRecord(row.problem or "no record")
  if len(row.record.images) > 0xFFFF:
    raise BadRecord(f"too many images: {len(row.record.images):,}")
  if (size := sum(map(len, row.record.images))) > MOST_BYTES:
    raise BadRecord(f"too large: {size:,} bytes of images, and a record holds {MOST_BYTES:,}")
  return row.record


def examine(record: Record) -> tuple[int, int, int, int, int, int]:
  """A row of INDEX. Every picture is decoded: BadImage where one cannot be."""
  sizes = [(found.height, found.width) for found in map(images.inspect, record.images)]
  shown = [part.index for turn in record.turns if turn.role == "assistant" for part in turn.content
           if isinstance(part, Picture)]  # fmt: skip
  height, width = sizes[shown[-1] if shown else -1] if sizes else (0, 0)
  texts = [part.texts for turn in record.turns for part in turn.content if isinstance(part, Text)]
  text_bytes = sum(max(len(text.encode("utf-8", "replace")) for text in alternatives) for alternatives in texts)
  text_tokens = count_tokens(record.turns, builtin_vocabulary())
  return text_tokens, text_bytes, len(sizes), height, width, turn_tokens(record.turns)


@functools.cache
def builtin_vocabulary() -> TextTokenizer:
  return TextTokenizer.load()


def content(record: Record) -> tuple[int, int]:
  """128 bits, equal for records of the same pictures and the same turns."""
  found = hashlib.sha256(records.turns_to_json(record.turns).encode())
  for image in record.images:
    found.update(hashlib.sha256(image).digest())
  return tuple(np.frombuffer(found.digest()[:16], "<u8").tolist())


def is_held_out(row: Row, share: float) -> bool:
  """As the source says; else by a hash of the first picture, so that none is in both splits, or of the text."""
  if row.split is not None:
    return row.split == "test"
  record = row.record
  what = record.images[0] if record.images else records.turns_to_json(record.turns).encode()
  return int.from_bytes(hashlib.sha256(what).digest()[:8], "little") < share * 2**64
