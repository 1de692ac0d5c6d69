"""Text alone, so that a language model keeps what it knows.

A .txt file is one document; a long one is parted, between paragraphs where it can be, into records of at most
`MAX_CHARACTERS`: what does not fit the rows of training would be left out of it. Of a list (.jsonl, .csv, .tsv,
.parquet) each row is a record as it stands, its text the column `text`.
"""

import codecs
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omniimage.data.formats import inside, listing
from omniimage.data.formats.captions import Captions, clean
from omniimage.data.formats.format import Given, Row, Unit
from omniimage.data.formats.rows import row_of, split_in, units_of
from omniimage.data.formats.survey import Survey
from omniimage.data.formats.tables import TABLES, Table, open_table
from omniimage.data.records import BadRecord, Record, Text, Turn

MAX_CHARACTERS = 2000  # of a record from a .txt file: about 500 tokens of English in a large vocabulary
READ_BYTES = 2**16  # at a time


def fits(survey: Survey) -> bool:
  known = (
    survey.pictures or survey.tars or survey.tfds or any(table.kind not in ("text", "") for table in survey.tables)
  )
  return not known and (".txt" in survey.suffixes or bool(survey.of_kind("text")))


def open_text(source: str, given: Given) -> "Texts":
  """UserError where there are no texts, or a list has no such column."""
  return Texts(*listing.files(source, (".txt", *TABLES)), given)


class Texts:
  """Units are .txt files, many small ones together, and spans of the lists' rows."""

  def __init__(self, root: str, names: Sequence[str], given: Given):
    self._root, self._split_column = root, given.split_column
    self._documents = [name for name in names if listing.suffix(name) == ".txt"]
    self._tables: dict[str, tuple[Table, Captions]] = {}
    for name in names:
      if name not in set(self._documents):
        table = open_table(str(Path(root, name)))
        self._tables[name] = table, Captions(given.caption_columns, table.columns(), name)
    self._splits = listing.splits_of(names)

  def found(self) -> str:
    said = [f"{captions.found} of {name}" for name, (_, captions) in self._tables.items()]
    return " and ".join([*(["the .txt files"] if self._documents else []), *said[:3]])

  def units(self) -> Sequence[Unit]:
    units = [Unit(inside.shown(name), name) for name in self._documents]
    for name, (table, _) in self._tables.items():
      units += units_of(name, name, table)
    return units

  def rows(self, unit: Unit) -> Iterator[Row]:
    if isinstance(unit.content, str):
      yield from self._of_document(unit.content)
      return
    name, span = unit.content
    table, captions = self._tables[name]
    for line, fields in table.rows(span):
      key = f"{name}:{line}"
      yield row_of(key, lambda key=key, fields=fields: self._of_fields(name, key, captions, fields))

  def fingerprint(self) -> str:
    return listing.fingerprint(self._root, [*self._documents, *self._tables])

  def _of_fields(self, name: str, key: str, captions: Captions, fields: Any) -> tuple[Record, str | None]:
    if isinstance(fields, BadRecord):
      raise fields
    split = split_in(fields, self._split_column, self._splits[name])
    return _record(key, captions.of(fields)), split

  def _of_document(self, name: str) -> Iterator[Row]:
    split, empty = self._splits[name], True
    try:
      inside.find(self._root, name)
      for number, text in enumerate(_pieces(Path(self._root, name))):
        key, empty = f"{name}:{number}", False
        yield row_of(key, lambda key=key, text=text: (_record(key, (clean(text, "it"),)), split))
    except (UnicodeError, OSError, BadRecord) as error:
      yield Row(inside.shown(name), problem=inside.shown(f"it cannot be read further: {error}"))
    else:
      if empty:
        yield Row(inside.shown(name), problem="it has no text")


def _record(key: str, texts: Sequence[str]) -> Record:
  return Record(inside.shown(key), (Turn("assistant", (Text(tuple(texts)),)),))


def _pieces(path: Path) -> Iterator[str]:
  """Of a document, at most MAX_CHARACTERS each, none of them blank. UnicodeError where it is not UTF-8."""
  decoder, rest = codecs.getincrementaldecoder("utf-8-sig")(), ""
  with path.open("rb") as file:
    while block := file.read(READ_BYTES):
      rest += decoder.decode(block).replace("\r\n", "\n")
      while len(rest) > MAX_CHARACTERS:
        end = _end(rest)
        if piece := rest[:end].strip():
          yield piece
        rest = rest[end:]
  rest += decoder.decode(b"", final=True)
  if rest.strip():
    yield rest.strip()


def _end(text: str) -> int:
  """Where a piece ends: after the last paragraph, line, sentence or word of the second half; else anywhere."""
  for border in (r"\n\s*\n", r"\n", r"[.!?。]\s", r"\s"):
    ends = [match.end() for match in re.finditer(border, text[:MAX_CHARACTERS])]
    if ends and ends[-1] > MAX_CHARACTERS // 2:
      return ends[-1]
  return MAX_CHARACTERS
