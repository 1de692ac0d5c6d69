"""Pictures in a folder, as Hugging Face's `imagefolder` has them.

Their captions are found in the first of these that there is:

  a list      metadata.jsonl, .csv or .parquet, at the top or in sub-folders: `file_name`, relative to the list, `text`
  texts       cat.txt beside cat.jpg, the whole file one caption
  classes     cats/1.jpg, long_haired_dogs/2.jpg: the folder's name, underscores as spaces

Folders train, test and validation are splits where both sides occur (validation counts as test). What is hidden, and
pictures that a list does not name, are not read.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omniimage.data.formats import inside, listing
from omniimage.data.formats.captions import Captions, listed
from omniimage.data.formats.format import Given, Row, Unit
from omniimage.data.formats.rows import row_of, split_in, units_of
from omniimage.data.formats.survey import Survey, require_image_column, summary
from omniimage.data.formats.tables import TABLES, Table, first_rows, open_table
from omniimage.data.formats.unlisted import UnlistedFolder
from omniimage.data.records import BadRecord, Record, captioned
from omniimage.errors import UserError

LISTS = tuple(f"metadata{suffix}" for suffix in TABLES)


def fits(survey: Survey) -> bool:
  told = survey.of_kind("conversations") or survey.of_kind("edits")  # whose pictures these are
  return (survey.pictures or bool(survey.of_kind("list"))) and not told


def open_folder(source: str, given: Given) -> "ListedFolder | UnlistedFolder":
  """UserError where there are no pictures, no captions, or a column is not there."""
  root, metadata = source, given.metadata
  if os.path.isfile(source):
    root, metadata = os.path.dirname(source) or ".", os.path.basename(source)
  elif not os.path.isdir(source):
    raise UserError(f"{source} is no folder; expected one with pictures, and metadata.jsonl or a .txt beside each")
  names = list(listing.walk(root))
  lists = [metadata] if metadata else _lists(root, names, given)
  if lists:
    return ListedFolder(root, lists, given)
  return UnlistedFolder(root, names, given)


@dataclass(frozen=True)
class PictureList:
  """A table of pictures.

  Attributes:
    name: of its file, relative to the data set.
    base: the folder that its file names are relative to, relative to the data set.
    image: the column of these names.
  """

  name: str
  base: str
  table: Table
  image: str
  captions: Captions


class ListedFolder:
  """Units are spans of the lists' rows."""

  def __init__(self, root: str, lists: Sequence[str], given: Given):
    self._root, self._split_column = root, given.split_column
    self._lists = [_open_list(root, name, given) for name in lists]
    self._by_folder = listing.splits_of(f"{entry.name}/" for entry in os.scandir(root) if entry.is_dir())
    self._by_list = listing.splits_of(lists)

  def found(self) -> str:
    first = self._lists[0]
    return f"{first.image} and {first.captions.found} of {listed([entry.name for entry in self._lists])}"

  def units(self) -> Sequence[Unit]:
    return [unit for i, entry in enumerate(self._lists) for unit in units_of(entry.name, i, entry.table)]

  def rows(self, unit: Unit) -> Iterator[Row]:
    i, span = unit.content
    entry: PictureList = self._lists[i]
    for line, fields in entry.table.rows(span):
      yield row_of(f"{entry.name}:{line}", lambda fields=fields: self._record(entry, fields))

  def fingerprint(self) -> str:
    return listing.fingerprint(self._root, [*(entry.name for entry in self._lists), *listing.walk(self._root)])

  def _record(self, entry: PictureList, fields: Any) -> tuple[Record, str | None]:
    if isinstance(fields, BadRecord):
      raise fields
    name = fields.get(entry.image)
    if not isinstance(name, str):
      raise BadRecord(f"{entry.image} names no file: it is {name!r}")
    path = os.path.normpath(os.path.join(entry.base, name))
    image = inside.read(self._root, name, entry.base)
    by_name = self._by_folder.get(path.split("/")[0] + "/") or self._by_list[entry.name]
    split = split_in(fields, self._split_column, by_name)
    return captioned(inside.shown(path), entry.captions.of(fields), image), split


def _lists(root: str, names: Sequence[str], given: Given) -> list[str]:
  """The lists of pictures: metadata.* of each folder; else the one at the top that has a picture's column, or those
  that have and are named after splits."""
  lists = [name for name in names if os.path.basename(name).lower() in LISTS]
  if len({os.path.dirname(name) for name in lists}) < len(lists):
    raise UserError(f"a folder of {root} has two lists: {listed(lists)}; keep one, or say which with --metadata=NAME")
  if lists:
    return lists
  tables = [name for name in names if "/" not in name and listing.suffix(name) in TABLES]
  lists = [name for name in tables if summary(str(Path(root, name)), name, given).kind == "list"]
  if len(lists) > 1 and not all(map(listing.split_of_name, lists)):
    raise UserError(f"{root} has several lists of pictures: {listed(lists)}; say which one with --metadata=NAME")
  return lists


def _open_list(root: str, name: str, given: Given) -> PictureList:
  """UserError where it lacks a column, or none of the first pictures that it names is there."""
  table = open_table(str(Path(root, name)))
  columns = table.columns()
  image = require_image_column(columns, given, name)
  captions = Captions(given.caption_columns, columns, name)
  if given.split_column and given.split_column not in columns:
    raise UserError(f"{name} has no {given.split_column!r}; it has {listed(columns)}; give --split_column=NAME")
  named = [fields[image] for fields in first_rows(table) if isinstance(fields.get(image), str)]
  folder = os.path.dirname(name)
  for base in dict.fromkeys((folder, "")):
    if any(_is_there(root, picture, base) for picture in named):
      return PictureList(name, base, table, image, captions)
  example = f", {inside.shown(named[0])} for example" if named else ""
  raise UserError(
    f"{image} of {name} names no picture that there is{example}; names are relative to the list; give the column of "
    "file names with --image_column=NAME"
  )


def _is_there(root: str, name: str, base: str) -> bool:
  try:
    return inside.find(root, name, base).is_file()
  except (BadRecord, OSError):
    return False
