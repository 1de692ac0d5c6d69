"""The fields of a request, read one by one: each of its kind, none that nobody knows."""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from omniimage import strict_json
from omniimage.errors import UserError
from omniimage.ranges import SEEDS, Range
from omniimage.serving.refusals import Refused


def parsed(body: bytes) -> dict[str, Any]:
  """A body that is a JSON object. Refused for any other."""
  try:
    value = strict_json.loads(body)
  except ValueError as error:
    reason = f"{error.msg} at character {error.pos}" if isinstance(error, json.JSONDecodeError) else str(error)
    raise Refused(f"the body is no JSON: {reason}") from None
  if not isinstance(value, dict):
    raise Refused("the body must be a JSON object, as {…}")
  return value


class Fields:
  """Those of a request. What is taken must be of its kind; `done` refuses what nobody has taken."""

  def __init__(self, given: Mapping[str, Any]):
    self._given = {name: value for name, value in given.items() if value is not None}
    self._asked: set[str] = set()

  def take(self, name: str, default: Any = None) -> Any:
    self._asked.add(name)
    return self._given.get(name, default)

  def text(self, name: str, default: str | None = None) -> str | None:
    return self._kind(name, default, "a text", lambda value: isinstance(value, str))

  def flag(self, name: str, default: bool = False) -> bool:
    value = self.take(name, default)
    if isinstance(value, str) and value.lower() in ("true", "false"):  # of a form
      return value.lower() == "true"
    return self._kind(name, default, "true or false", lambda value: isinstance(value, bool))

  def list(self, name: str) -> list:
    return self._kind(name, [], "a list", lambda value: isinstance(value, list))

  def one_of(self, name: str, choices: Collection[str], default: str) -> str:
    value = self.text(name, default)
    if value not in choices:
      raise Refused(f"{name}={_shown(value)} must be one of {', '.join(choices)}", field=name)
    return value

  def whole(self, name: str, default: int, allowed: Range = SEEDS) -> int:
    return self._number(name, default, allowed, int)

  def real(self, name: str, default: float, allowed: Range) -> float:
    return self._number(name, default, allowed, float)

  def done(self, ignored: Collection[str] = ()):
    """Refused where there is a field that was not asked for, but for those that are `ignored`."""
    unknown = sorted(set(self._given) - self._asked - set(ignored))
    if unknown:
      raise Refused(
        f"{_shown(unknown[0])} is no field of this request; there are {', '.join(sorted(self._asked))}",
        field=unknown[0][:80],
      )

  def _number(self, name: str, default: Any, allowed: Range, kind: Callable[[Any], Any]) -> Any:
    value = self.take(name, default)
    if isinstance(value, str) and len(value) <= 32:  # of a form
      try:
        value = kind(value)
      except ValueError:
        value = None
    if kind is int and isinstance(value, float) and value.is_integer():
      value = int(value)
    if value not in allowed or (kind is int and not isinstance(value, int)):
      what = "a whole number" if kind is int else "a number"
      raise Refused(f"{name}={_shown(self._given.get(name))} must be {what} {allowed}", field=name)
    return kind(value)

  def _kind(self, name: str, default: Any, what: str, fits: Callable[[Any], bool]) -> Any:
    value = self.take(name, default)
    if value is not default and not fits(value):
      raise Refused(f"{name}={_shown(value)} must be {what}", field=name)
    return value


def mendable(error: UserError) -> Refused:
  """What is wrong with a request, by the error of the code that has read it."""
  return error if isinstance(error, Refused) else Refused(str(error))


def _shown(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 80 else f"{text[:80]}…"
