"""Parquet with the pictures in it: what `img2dataset` writes as Parquet, and data sets of the Hugging Face hub.

A picture is a column of bytes (image, jpg, png, webp, …), of structs {bytes, path}, or of file names relative to the
file. A caption is a text, a list of alternatives, or a text that is a JSON list of them. Numbers that Hugging Face has
names for become these names. Where a column `status` says anything but success, the row is left out with that reason.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omniimage.data.formats import inside, listing
from omniimage.data.formats.captions import Captions, listed
from omniimage.data.formats.format import Given, Row, Unit
from omniimage.data.formats.rows import row_of, split_in, units_of
from omniimage.data.formats.survey import Survey, require_image_column
from omniimage.data.formats.tables import Parquet
from omniimage.data.records import BadRecord, Record, captioned
from omniimage.errors import UserError

SUCCESS = "success"
OF_THE_DOWNLOAD = ("url", "status", "error_message")


def fits(survey: Survey) -> bool:
  return bool(survey.of_kind("images"))


def open_parquet(source: str, given: Given) -> "ParquetFiles":
  """UserError where there is no Parquet file, none can be read, or a column is not there."""
  return ParquetFiles(*listing.files(source, (".parquet",)), given)


@dataclass(frozen=True)
class File:
  """A Parquet file.

  Attributes:
    problem: why it cannot be read; then the rest is empty.
    image: the column of the pictures.
  """

  name: str
  problem: str = ""
  table: Parquet | None = None
  image: str = ""
  captions: Captions | None = None


class ParquetFiles:
  """Units are row groups."""

  def __init__(self, root: str, names: Sequence[str], given: Given):
    self._root, self._split_column = root, given.split_column
    self._files = [_open_file(root, name, given) for name in names]
    self._splits = listing.splits_of(names)
    if all(file.problem for file in self._files):
      raise UserError(f"no Parquet file can be read: {self._files[0].problem}")

  def found(self) -> str:
    first = next(file for file in self._files if not file.problem)
    return f"{first.image} and {first.captions.found} of {len(self._files)} Parquet files"

  def units(self) -> Sequence[Unit]:
    return [unit for i, file in enumerate(self._files) for unit in units_of(file.name, i, file.table)]

  def rows(self, unit: Unit) -> Iterator[Row]:
    i, span = unit.content
    file: File = self._files[i]
    if file.problem:
      yield Row(inside.shown(file.name), problem=inside.shown(file.problem))
      return
    for number, fields in file.table.rows(span):
      key = f"{file.name}:{number}"
      yield row_of(key, lambda key=key, fields=fields: self._record(file, key, fields))

  def fingerprint(self) -> str:
    return listing.fingerprint(self._root, [file.name for file in self._files])

  def _record(self, file: File, key: str, fields: Any) -> tuple[Record, str | None]:
    if isinstance(fields, BadRecord):
      raise fields
    if (status := fields.get("status", SUCCESS)) != SUCCESS and "url" in fields:
      why = fields.get("error_message")
      raise BadRecord(f"status is {status}" + (f": {why}" if why else ""))
    image = self._image(file, fields[file.image])
    split = split_in(fields, self._split_column, self._splits[file.name])
    return captioned(inside.shown(key), file.captions.of(fields), image), split

  def _image(self, file: File, value: Any) -> bytes:
    match value:
      case bytes() if value:
        return value
      case {"bytes": bytes(content)} if content:
        return content
      case str(name) | {"path": str(name)}:
        return inside.read(self._root, name, str(Path(file.name).parent))
      case None | b"" | Mapping():
        raise BadRecord(f"no picture: {file.image} is empty")
    raise BadRecord(f"{file.image} is a {type(value).__name__}; expected bytes, {{bytes, path}} or a file name")


def _open_file(root: str, name: str, given: Given) -> File:
  """UserError where it lacks a column."""
  try:
    table = Parquet(str(Path(root, name)))
  except UserError as error:
    return File(name, str(error))
  columns = table.columns()
  image = require_image_column(columns, given, name)
  if given.split_column and given.split_column not in columns:
    raise UserError(f"{name} has no {given.split_column!r}; it has {listed(columns)}; give --split_column=NAME")
  captions = Captions(given.caption_columns, columns, name)
  # Others, embeddings perhaps, may be larger than the pictures.
  table.only({image, given.split_column, *OF_THE_DOWNLOAD, *captions.fields})
  return File(name, "", table, image, captions)
