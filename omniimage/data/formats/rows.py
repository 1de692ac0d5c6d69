"""Rows of a format: what is wrong with one is its problem and never an exception."""

from collections.abc import Callable, Mapping
from typing import Any

from omniimage.data.formats.format import Row
from omniimage.data.formats.inside import shown
from omniimage.data.formats.listing import split_of_value
from omniimage.data.records import BadRecord, Record


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
