"""Ranges: which numbers a setting or a flag may have, declared where it is, checked in one way.

  rows: Annotated[int, Range(1, 2**20)]

The bounds are where a number ceases to mean anything: what float32 or int32 cannot hold, what no memory holds, what
draws noise. They are no advice.
"""

import dataclasses
import functools
import numbers
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from omniimage.errors import SettingsError

SHOWN = 80  # characters of a value that an error repeats


@dataclasses.dataclass(frozen=True)
class Range:
  """Numbers from `least` to `most`, both included. So neither NaN nor an infinity is in any."""

  least: float
  most: float

  def __contains__(self, value: Any) -> bool:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and self.least <= value <= self.most

  def __str__(self) -> str:
    return f"from {_plain(self.least)} to {_plain(self.most)}"


SEEDS = Range(0, 2**64 - 1)


class OutOfRange(SettingsError):
  """A number outside the range of its field. The message begins with the field's name."""


class Ranged:
  """Base of dataclasses whose fields may be `Annotated[…, Range(…)]`, or tuples of such or mappings to such: their
  numbers are checked whenever one is made. Subclasses with a `__post_init__` of their own begin it with this one."""

  def __post_init__(self):
    values = vars(self)
    for name, allowed in ranges_of(type(self)).items():
      for place, value in _numbers(values[name]):
        if value not in allowed:
          raise OutOfRange(f"{name}{place}={shown(value)} must be {allowed}")


@functools.cache
def ranges_of(cls: type) -> dict[str, Range]:
  """The range of every field of a dataclass, or of the items of a tuple or mapping, that declares one."""
  found, items = {}, {tuple: 0, Mapping: 1}
  for name, hint in typing.get_type_hints(cls, include_extras=True).items():
    origin = typing.get_origin(hint)
    inner = typing.get_args(hint)[items[origin]] if origin in items else hint
    if typing.get_origin(inner) is Annotated:
      found[name] = next(item for item in inner.__metadata__ if isinstance(item, Range))
  return found


def _numbers(value: Any) -> Iterator[tuple[str, Any]]:
  """(place in the field, number) of each number in a field's value."""
  if isinstance(value, Mapping):
    yield from ((f".{key}", item) for key, item in value.items())
  elif isinstance(value, tuple):
    yield from ((f"[{i}]", item) for i, item in enumerate(value))
  else:
    yield "", value


def shown(value: Any) -> str:
  """A value as an error repeats it: not all the digits of a number that has hundreds, which Python may even refuse."""
  if isinstance(value, int) and value.bit_length() > 128:
    return f"{'-' if value < 0 else ''}2**{value.bit_length() - 1}…"
  text = repr(value)
  return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _plain(bound: float) -> str:
  return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"
