"""Lists of rows: JSON lines, CSV and Parquet, a span of rows at a time; no file is ever read as a whole."""

import csv
import io
import itertools
import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from omniimage.data.formats.listing import suffix
from omniimage.data.records import BadRecord
from omniimage.errors import UserError

UNIT_ROWS = 4096  # rows of a span
SAMPLED_ROWS = 1000  # the first ones, from which the columns of JSON lines are collected
BATCH_ROWS = 32  # rows of a Parquet file in memory, pictures included
MAX_LINE = 2**28  # bytes
MAX_FIELD = 2**20  # characters of a field of CSV


@dataclass(frozen=True)
class Span:
  """Some rows of a table.

  Attributes:
    start, stop: bytes of JSON lines and CSV; rows within a row group of Parquet.
    line: of the first row, as an editor counts from 1; a row of Parquet counts from 0.
    rows: how many, blank lines not counted.
    group: of Parquet.
  """

  start: int
  stop: int
  line: int
  rows: int
  group: int = 0


Fields = Mapping[str, Any]


class Table(Protocol):
  """A file of rows. UserError at opening where it is none."""

  path: str

  def columns(self) -> list[str]: ...

  def first(self) -> Span | None:
    """One that begins with the first row, found without looking through the file; its end may be that of another."""

  def spans(self) -> list[Span]: ...

  def rows(self, span: Span) -> Iterator[tuple[int, Fields | BadRecord]]:
    """(line, the row's fields or why it has none)"""


class JsonLines:
  """An object a line. Bytes that are no UTF-8 become lone surrogates, so that file names come through."""

  def __init__(self, path: str):
    self.path = path
    with _opened(path) as file:
      if file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        raise UserError(
          f"{path} is one JSON list, not an object a line; write it as lines: jq -c '.[]' FILE > FILE.jsonl"
        )

  def columns(self) -> list[str]:
    """Of the first rows, those that any of them has."""
    return list(dict.fromkeys(name for fields in first_rows(self) for name in fields))

  def first(self) -> Span:
    return Span(0, os.path.getsize(self.path), 1, 0)

  def spans(self) -> list[Span]:
    with _opened(self.path) as file:
      return _spans((len(line), 1, bool(line.strip())) for line in _lines(file))

  def rows(self, span: Span) -> Iterator[tuple[int, Fields | BadRecord]]:
    with _opened(self.path) as file:
      file.seek(span.start)
      for line, text in enumerate(_lines(file, span.stop - span.start), span.line):
        if text.strip():
          yield line, _object(text.removeprefix(b"\xef\xbb\xbf"))


class Csv:
  """Its first line names the columns; they are parted by commas, semicolons or tabs, whichever that line has most."""

  def __init__(self, path: str):
    self.path = path
    with _opened(path) as file:
      first = file.readline(MAX_LINE)
    if b"\0" in first:
      raise UserError(f"{path} is not UTF-8 (UTF-16, as Excel writes?); save it as UTF-8 CSV")
    header = first.decode("utf-8-sig", "surrogateescape")
    self._delimiter = max(",;\t", key=header.count)
    columns = next(self._rows(iter([header])), [])
    self._columns = [] if isinstance(columns, BadRecord) else [name.strip() for name in columns]
    if not any(self._columns):
      raise UserError(f"{path} has no first line that names its columns, as file_name,text")

  def columns(self) -> list[str]:
    return self._columns

  def first(self) -> Span:
    return Span(0, os.path.getsize(self.path), 1, 0)

  def spans(self) -> list[Span]:
    with _opened(self.path) as file:
      taken = [0, 0]  # bytes and lines of the row that is being read

      def lines() -> Iterator[str]:
        for line in _lines(file):
          taken[0], taken[1] = taken[0] + len(line), taken[1] + 1
          yield line.decode("utf-8", "surrogateescape")

      def rows() -> Iterator[tuple[int, int, bool]]:
        for number, row in enumerate(self._rows(lines())):
          yield *taken, bool(number and row)  # the first names the columns
          taken[:] = 0, 0

      return _spans(rows())

  def rows(self, span: Span) -> Iterator[tuple[int, Fields | BadRecord]]:
    with _opened(self.path) as file:
      file.seek(span.start)
      first = following = span.line

      def lines() -> Iterator[str]:
        nonlocal following
        for line in _lines(file, span.stop - span.start):
          following += 1
          yield line.decode("utf-8", "surrogateescape")

      for row in self._rows(lines()):
        if row and first > 1:  # the first line names the columns
          yield first, self._fields(row)
        first = following

  def _fields(self, row: list[str] | BadRecord) -> Fields | BadRecord:
    if isinstance(row, BadRecord):
      return row
    if len(row) != len(self._columns):
      return BadRecord(
        f"it has {len(row)} fields where the first line has {len(self._columns)}; put a text with {self._delimiter!r} "
        "in quotes"
      )
    return dict(zip(self._columns, row))

  def _rows(self, lines: Iterator[str]) -> Iterator[list[str] | BadRecord]:
    reader = self._reader(lines)
    while True:
      try:
        yield next(reader)
      except StopIteration:
        return
      except csv.Error as error:
        yield BadRecord(f"no CSV: {error}")

  def _reader(self, lines) -> Iterator[list[str]]:
    csv.field_size_limit(MAX_FIELD)
    return csv.reader(lines, delimiter=self._delimiter, strict=True)  # or a quote without end would swallow rows


class Parquet:
  """Columns of any type; numbers that Hugging Face has names for are given as these names."""

  def __init__(self, path: str):
    from pyarrow import ArrowException, parquet

    self.path = path
    try:
      with parquet.ParquetFile(path) as file:
        self._groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        self._columns = list(file.schema_arrow.names)
        self._types = {field.name: str(field.type) for field in file.schema_arrow}
        self._classes = _class_names(file.schema_arrow.metadata)
    except (ArrowException, OSError, ValueError) as error:
      raise UserError(f"{path} is no Parquet file, or is cut short: {_line(error)}; make it again") from None

  def columns(self) -> list[str]:
    return self._columns

  def only(self, columns: Collection[str]):
    """Reads no others from now on."""
    self._columns = [name for name in self._columns if name in columns]

  def holds_bytes(self, column: str) -> bool:
    """Whether it is of bytes, or of structs that have some."""
    return "binary" in self._types[column]

  def first(self) -> Span | None:
    return next(iter(self.spans()), None)

  def spans(self) -> list[Span]:
    starts = itertools.accumulate(self._groups, initial=0)
    return [Span(0, rows, start, rows, group) for group, (start, rows) in enumerate(zip(starts, self._groups)) if rows]

  def rows(self, span: Span) -> Iterator[tuple[int, Fields | BadRecord]]:
    from pyarrow import ArrowException, parquet

    row = span.line
    try:
      with parquet.ParquetFile(self.path, buffer_size=2**20, pre_buffer=False) as file:  # or all of a row group is read
        for batch in file.iter_batches(BATCH_ROWS, row_groups=[span.group], columns=self._columns):
          for i in range(batch.num_rows):
            yield row, self._fields(batch, i)
            row += 1
    except (ArrowException, OSError, ValueError) as error:
      yield row, BadRecord(f"truncated: {self.path} cannot be read from here on: {_line(error)}")

  def _fields(self, batch: Any, i: int) -> Fields | BadRecord:
    try:
      fields = {name: batch.column(name)[i].as_py() for name in self._columns}
    except (UnicodeDecodeError, ValueError, OverflowError) as error:
      return BadRecord(f"a value is not what its column says: {_line(error)}")
    for name, classes in self._classes.items():
      if isinstance(number := fields.get(name), int) and 0 <= number < len(classes):
        fields[name] = classes[number]
    return fields


TABLES: Mapping[str, type[Table]] = {
  ".jsonl": JsonLines,
  ".ndjson": JsonLines,
  ".csv": Csv,
  ".tsv": Csv,
  ".parquet": Parquet,
}


def open_table(path: str) -> Table:
  kind = TABLES.get(suffix(path))
  if kind is None:
    raise UserError(f"{path} is no list of rows; expected one of {', '.join(TABLES)}")
  return kind(path)


def first_rows(table: Table) -> Iterator[Fields]:
  """Some of the first rows, without those that have no fields."""
  span = table.first()
  rows = itertools.islice(table.rows(span), SAMPLED_ROWS) if span else ()
  return (fields for _, fields in rows if not isinstance(fields, BadRecord))


def _opened(path: str) -> io.BufferedReader:
  try:
    return open(path, "rb")
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror}; mend that, or move it away") from None


def _lines(file: io.BufferedReader, limit: int | None = None) -> Iterator[bytes]:
  """Of the next `limit` bytes, each with its end; one that is longer than MAX_LINE in pieces."""
  while (limit is None or limit > 0) and (line := file.readline(MAX_LINE)):
    yield line
    limit = limit and limit - len(line)


def _spans(rows: Iterator[tuple[int, int, bool]]) -> list[Span]:
  """Of (bytes, lines, whether it counts) of each row."""
  spans, start, stop, line, next_line, count = [], 0, 0, 1, 1, 0
  for size, lines, counts in rows:
    stop, next_line, count = stop + size, next_line + lines, count + counts
    if count == UNIT_ROWS:
      spans.append(Span(start, stop, line, count))
      start, line, count = stop, next_line, 0
  return [*spans, Span(start, stop, line, count)] if count else spans


def _object(text: bytes) -> Fields | BadRecord:
  try:
    value = json.loads(text.decode("utf-8", "surrogateescape"))
  except (ValueError, RecursionError) as error:
    return BadRecord(f"no JSON: {_line(error)}")
  return value if isinstance(value, dict) else BadRecord(f"no JSON object, but a {type(value).__name__}")


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
  """Column → names of its numbers, of what Hugging Face's `datasets` writes into a file."""
  try:
    features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    return {name: feature["names"] for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
  except (ValueError, KeyError, TypeError, AttributeError):
    return {}


def _line(error: Exception) -> str:
  return " ".join(str(error).split())[:200]
