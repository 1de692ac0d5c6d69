"""What a row of a source says of its picture."""

import json
import math
import string
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from omniimage.data.formats.inside import shown
from omniimage.data.records import BadRecord
from omniimage.errors import UserError

DEFAULT_COLUMNS = ("text", "caption", "captions", "txt", "prompt")  # the first that says something
LISTED = 20  # columns that a message names


class Captions:
  """Reads the captions of a row, alternatives that say the same.

  A column is the name of a field, or a template over fields, as "{label} in {style} style". Several columns are
  alternatives, and so are the entries of a field that is a list, or text that is a JSON list of texts; in a template
  the entries of a list are joined by commas. Numbers are written out, white space around a caption is cut off. A field
  that is absent, null, NaN or blank says nothing, and neither does a template over it.
  """

  found: str  # in words, the columns
  fields: frozenset[str]  # that are read

  def __init__(self, columns: Sequence[str], available: Collection[str], where: str):
    """UserError where a given column is none of those available; without any given, those in `DEFAULT_COLUMNS`.

    Args:
      where: the columns were looked for, for messages.
    """
    self.columns = tuple(columns) or DEFAULT_COLUMNS
    self._all = bool(columns)
    wanted = tuple(columns) or (next((name for name in DEFAULT_COLUMNS if name in available), "text"),)
    self.found = " and ".join(wanted)
    self._names = {column: [column] if column in available else _fields_of(column) for column in self.columns}
    self.fields = frozenset(field for names in self._names.values() for field in names)
    for field in [field for column in wanted for field in self._names[column]]:
      if field not in available:
        raise UserError(
          f"{where} has no {field!r} for a caption; it has {listed(available)}; give --caption_column=NAME, or a "
          'template such as --caption_column="a photo of {NAME}"'
        )

  def of(self, fields: Mapping[str, Any]) -> tuple[str, ...]:
    """At least one. BadRecord: "no caption: …", or that one is no text."""
    found: dict[str, None] = {}
    for column in self.columns:
      found.update(dict.fromkeys(self._of_column(column, fields)))
      if found and not self._all:
        break
    if not found:
      raise BadRecord(f"no caption: {_why(self.columns, self._names, fields)}")
    return tuple(found)

  def _of_column(self, column: str, fields: Mapping[str, Any]) -> list[str]:
    names = self._names[column]
    values = {name: list(texts(fields.get(name), name)) for name in names}
    if names == [column]:
      return values[column]
    if not all(values.values()):
      return []
    filled = "".join(text + ", ".join(values.get(field, ())) for text, field, _, _ in string.Formatter().parse(column))
    return [clean(filled, column)]


def texts(value: Any, name: str) -> Iterator[str]:
  """The texts of a field that are not blank. BadRecord where it holds what is no text."""
  match value:
    case None:
      return
    case float() if math.isnan(value):
      return
    case str() | bytes():
      text = clean(value, name)
      alternatives = _json_list(text)
      if alternatives is not None:
        yield from filter(None, (clean(item, name) for item in alternatives))
      elif text:
        yield text
    case bool() | int() | float():
      yield str(value)
    case list() | tuple():
      for item in value:
        yield from texts(item, name)
    case _ if hasattr(value, "tolist"):  # of NumPy
      yield from texts(value.tolist(), name)
    case _:
      raise BadRecord(f"{name} is a {type(value).__name__}, not a text")


def clean(text: str | bytes, name: str) -> str:
  """Without white space around it. BadRecord where it is not UTF-8."""
  try:
    text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    text.encode()
  except UnicodeError:  # bytes of another encoding, or half of a character that UTF-16 writes in two
    start = text[:40] if isinstance(text, bytes) else text[:40].encode("utf-8", "surrogatepass")
    raise BadRecord(f"{name} is not UTF-8: {start!r}") from None
  return text.strip().strip("\0\ufeff").strip()


def listed(names: Collection[str]) -> str:
  """Names in a message."""
  names = [shown(str(name)) for name in names]
  return ", ".join(sorted(names)[:LISTED]) + (", …" if len(names) > LISTED else "") or "no columns"


def _json_list(text: str) -> list[str] | None:
  if not text.startswith("["):
    return None
  try:
    value = json.loads(text)
  except (ValueError, RecursionError):
    return None
  return value if all(isinstance(item, str) for item in value) else None


def _fields_of(column: str) -> list[str]:
  """The fields of a template, else the column itself. UserError where it is no template."""
  try:
    parts = list(string.Formatter().parse(column))
  except ValueError as error:
    raise UserError(f"caption column {column!r} is no template: {error}; write a field as {{NAME}}") from None
  fields = [field for _, field, _, _ in parts if field is not None]
  if any(not field or spec or conversion for _, field, spec, conversion in parts if field is not None):
    raise UserError(f"caption column {column!r} is no template: write a field as {{NAME}}, and nothing else in braces")
  return list(dict.fromkeys(fields)) or [column]


def _why(columns: Sequence[str], names: Mapping[str, list[str]], fields: Mapping[str, Any]) -> str:
  asked = list(dict.fromkeys(name for column in columns for name in names[column]))
  present = [name for name in asked if name in fields]
  if present:
    return f"{' and '.join(present)} {'says' if len(present) == 1 else 'say'} nothing"
  return f"there is no {' or '.join(asked)} among {listed(fields)}"
