"""Rows of a format, and the units they come in: what is wrong with a row is its problem and never an exception."""

from collections.abc import Callable, Mapping
from typing import Any

from omniimage.data.formats.format import Row, Unit
from omniimage.data.formats.inside import shown
from omniimage.data.formats.listing import split_of_value
from omniimage.data.formats.tables import Table
from omniimage.data.records import BadRecord, Record


def units_of(name: str, place: Any, table: Table | None) -> list[Unit]:
  """A file's: the spans of its rows, or the file as one where it is no table. Their content is (place, span)."""
  if table is None:
    return [Unit(shown(name), (place, None))]
  return [Unit(shown(f"{name}:{span.line}"), (place, span), span.rows) for span in table.spans()]


def row_of(where: str, make: Callable[[], tuple[Record, str | None]]) -> Row:
  """The row of a record and its split; or of why there is none (BadRecord), for who looks for it `where`."""
  try:
    record, split = make()
    return Row(record.key, record, split=split)
  except BadRecord as error:
    return Row(shown(where), problem=shown(str(error)))


def split_in(fields: Mapping[str, Any], column: str, otherwise: str | None) -> str | None:
  """The split that a row's column says, if one is named. BadRecord where that is none."""
  if not column:
    return otherwise
  split = split_of_value(fields.get(column))
  if split is None:
    raise BadRecord(f"{column} is {fields.get(column)!r}; expected train, test or validation")
  return split
