"""JSON that every reader takes. A number that is not finite is null, and beside it stands what it was:

  {"loss": null, "not_finite": {"loss": "nan"}}

Files of lines are read as they are found: what is cut short, broken or of someone else is passed over.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NOT_FINITE = "not_finite"


def dumps(value: Any, **options) -> str:
  """Like `json.dumps`. A number that is not finite is told in the object that holds it, or a list of it."""
  return json.dumps(_without(value), allow_nan=False, **options)


def loads(text: str | bytes) -> Any:
  """The inverse of `dumps`, not finite numbers included. ValueError for whatever is no JSON."""
  try:
    return json.loads(text, object_hook=_with)
  except RecursionError:
    raise ValueError("nested too deeply") from None


def read_lines(path: Path) -> list[dict]:
  """The objects of a file of one a line; of lines that are no such object nothing. Empty if there is no file."""
  return lines_in(path.read_bytes()) if path.exists() else []


def lines_in(content: bytes) -> list[dict]:
  """The same of a file's content."""
  return [entry for line in content.split(b"\n") if (entry := _parsed(line)) is not None]


def append_line(path: Path, entry: Mapping[str, Any]):
  """Adds a line, on a line of its own even where the last one was cut short."""
  with path.open("ab+") as file:
    cut = file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n"
    file.write(b"\n" * bool(cut) + dumps(entry).encode() + b"\n")


def _parsed(line: bytes) -> dict | None:
  try:
    entry = loads(line.strip(b"\0 \r\t"))  # a power cut leaves zeros where a line was to be
  except ValueError:
    return None
  return entry if isinstance(entry, dict) else None


def _without(value: Any) -> Any:
  match value:
    case Mapping():
      reasons = {str(key): reason for key, inner in value.items() if (reason := _reason(inner))}
      strict = {key: _without(inner) for key, inner in value.items()}
      return {**strict, NOT_FINITE: reasons} if reasons else strict
    case list() | tuple():
      return [_without(inner) for inner in value]
    case float() if not math.isfinite(value):
      return None
  return value


def _reason(value: Any) -> str | list | None:
  """How a number that is not finite reads, or which of a list's are not."""
  if isinstance(value, float) and not math.isfinite(value):
    return repr(float(value))
  if isinstance(value, list | tuple) and any(reasons := [_reason(inner) for inner in value]):
    return reasons
  return None


def _with(entry: dict) -> dict:
  reasons = entry.get(NOT_FINITE)
  if not isinstance(reasons, dict):
    return entry
  return {key: _put_back(inner, reasons.get(key)) for key, inner in entry.items() if key != NOT_FINITE}


def _put_back(value: Any, reason: Any) -> Any:
  if value is None and reason in ("nan", "inf", "-inf"):
    return float(reason)
  if isinstance(value, list) and isinstance(reason, list) and len(value) == len(reason):
    return [_put_back(inner, why) for inner, why in zip(value, reason)]
  return value
