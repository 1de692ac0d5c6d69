"""Conversations in JSON lines or Parquet, each with its pictures beside or in it. Three ways to write one are read:

  LLaVA     {"image": "cat.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"},
                                                   {"from": "gpt", "value": "A cat."}]}
  messages  {"images": ["cat.jpg"], "messages": [{"role": "user", "content": "Draw a cat."},
                                                 {"role": "assistant", "content": "<image>"}]}
  parts     {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": "cat.jpg"}}]}, …]}, or "url": "data:image/png;base64,…"

In Parquet a picture may also be bytes, or a struct {bytes, path} as Hugging Face's `datasets` writes it. The pictures
of a line stand at its placeholders, one `<image>` each, in order; a part {"type": "image"} without a file is one too.
Where a line gives no pictures, `<image>` in its texts is text. File names are relative to the file of the
conversations or to the source, the folder of the pictures where `metadata` says which file has the conversations. What
a system prompt says is given as the user's words are.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from omniimage.data.formats import inside, listing
from omniimage.data.formats.captions import clean, listed
from omniimage.data.formats.format import Given, Row, Unit
from omniimage.data.formats.pictures import Pictures
from omniimage.data.formats.rows import row_of, split_in, units_of
from omniimage.data.formats.survey import CONVERSATIONS, Survey
from omniimage.data.formats.tables import Parquet, open_table
from omniimage.data.records import BadRecord, Part, Picture, Record, Text, Turn
from omniimage.errors import UserError

SUFFIXES = (".jsonl", ".ndjson", ".parquet")
ROLES = {
  "user": "user",
  "human": "user",
  "system": "user",
  "assistant": "assistant",
  "gpt": "assistant",
  "model": "assistant",
}
IMAGE_FIELDS = ("images", "image")
PLACEHOLDER = "<image>"


def fits(survey: Survey) -> bool:
  return bool(survey.of_kind("conversations"))


def open_conversations(source: str, given: Given) -> "Conversations":
  """UserError where no file has conversations."""
  if given.metadata:
    return Conversations(source, [given.metadata], given)
  return Conversations(*listing.files(source, SUFFIXES), given)


class Conversations:
  """Units are spans of lines."""

  def __init__(self, root: str, names: Sequence[str], given: Given):
    self._root, self._given = root, given
    self._image_fields = (given.image_column,) if given.image_column else IMAGE_FIELDS
    tables = {name: open_table(str(Path(root, name))) for name in names}
    columns = {name: table.columns() for name, table in tables.items()}
    self._tables = {name: tables[name] for name in names if set(columns[name]) & set(CONVERSATIONS)}
    if not self._tables:
      name = names[0]
      raise UserError(f"{name} has no 'conversations' or 'messages'; it has {listed(columns[name])}")
    for table in self._tables.values():
      if isinstance(table, Parquet):
        table.only({*CONVERSATIONS, *self._image_fields, given.split_column})
    self._splits = listing.splits_of(self._tables)

  def found(self) -> str:
    return f"conversations of {listed(self._tables)}"

  def units(self) -> Sequence[Unit]:
    return [unit for name, table in self._tables.items() for unit in units_of(name, name, table)]

  def rows(self, unit: Unit) -> Iterator[Row]:
    name, span = unit.content
    for line, fields in self._tables[name].rows(span):
      key = f"{name}:{line}"
      yield row_of(key, lambda key=key, fields=fields: self._record(name, key, fields))

  def fingerprint(self) -> str:
    return listing.fingerprint(self._root, [*self._tables, *listing.walk(self._root)])

  def _record(self, name: str, key: str, fields: Any) -> tuple[Record, str | None]:
    if isinstance(fields, BadRecord):
      raise fields
    column = next((column for column in CONVERSATIONS if fields.get(column)), None)
    if column is None:
      raise BadRecord(f"there is no conversation; it has {listed(fields)}")
    if not isinstance(fields[column], list):
      raise BadRecord(f"{column} must be a list of turns")
    split = split_in(fields, self._given.split_column, self._splits[name])
    folder = "" if self._given.metadata else os.path.dirname(name)
    pictures = _Pictures(inside.beside(self._root, folder), *self._named(fields))
    turns = tuple(_turn(turn, f"{column}[{i}]", pictures) for i, turn in enumerate(fields[column]))
    pictures.require_all_shown()
    if not any(turn.role == "assistant" for turn in turns):
      raise BadRecord(f"{column}: the assistant says nothing, so there is nothing to learn")
    return Record(inside.shown(key), turns, tuple(pictures.images)), split

  def _named(self, fields: dict[str, Any]) -> tuple[str, list]:
    """The field that names the pictures of a line, and what it names."""
    column = next((column for column in self._image_fields if fields.get(column)), self._image_fields[0])
    value = fields.get(column) or []
    return column, value if isinstance(value, list) else [value]


class _Pictures(Pictures):
  """Those of one conversation: at its placeholders, those that the line names; in its parts, each part's own."""

  def __init__(self, file: Callable[[str], bytes], column: str, named: list):
    super().__init__(file)
    self.given = bool(named)
    self._column, self._named, self._placeholders = column, named, 0

  def next(self) -> Picture:
    """The next that the line names. One too many is counted, to be told of at the end."""
    self._placeholders += 1
    if self._placeholders <= len(self._named):
      i = self._placeholders - 1
      return self.read(self._named[i], f"{self._column}[{i}]")
    return Picture(len(self.images))

  def require_all_shown(self):
    if self._placeholders != len(self._named):
      raise BadRecord(
        f"{self._column} has {len(self._named)} pictures, the texts have {self._placeholders} {PLACEHOLDER}; "
        "each picture needs its place"
      )


def _turn(turn: Any, field: str, pictures: _Pictures) -> Turn:
  if not isinstance(turn, dict):
    raise BadRecord(f'{field} must be {{"role": …, "content": …}} or {{"from": …, "value": …}}')
  who, what = ("from", "value") if "from" in turn else ("role", "content")
  role = ROLES.get(str(turn.get(who)).lower())
  if role is None:
    raise BadRecord(f"{field}.{who} is {turn.get(who)!r}; expected {' or '.join(ROLES)}")
  content = turn.get(what)
  if isinstance(content, str):
    parts = _of_text(content, f"{field}.{what}", pictures)
  elif isinstance(content, list):
    parts = [inner for i, part in enumerate(content) for inner in _of_part(part, f"{field}.{what}[{i}]", pictures)]
  else:
    raise BadRecord(f"{field}.{what} must be a text or a list of parts")
  if not parts:
    raise BadRecord(f"{field}.{what} is empty")
  return Turn(role, tuple(parts))


def _of_text(text: str, field: str, pictures: _Pictures) -> list[Part]:
  """A text, and the pictures where its placeholders stand."""
  parts: list[Part] = []
  for piece in re.split(f"({PLACEHOLDER})", text) if pictures.given else [text]:
    if piece == PLACEHOLDER and pictures.given:
      parts.append(pictures.next())
    elif said := clean(piece, field):
      parts.append(Text((said,)))
  return parts


def _of_part(part: Any, field: str, pictures: _Pictures) -> list[Part]:
  match part:
    case str(text) | {"type": "text" | "input_text" | "output_text", "text": str(text)}:
      return _of_text(text, field, pictures)
    case {"type": "image_url" | "input_image", "image_url": reference}:
      return [pictures.read(reference, f"{field}.image_url")]
    case {"type": "image", "image": reference} if reference:
      return [pictures.read(reference, f"{field}.image")]
    case {"type": "image", "url": str()} | {"type": "image", "path": str()}:
      return [pictures.read(part, field)]
    case {"type": "image"}:
      return [pictures.next()]
  raise BadRecord(
    f'{field} must be {{"type": "text", "text": …}} or {{"type": "image_url", "image_url": {{"url": …}}}}'
  )
