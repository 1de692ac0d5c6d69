"""Numbers for property tests, those at the edges of types more often than others; and where settings have numbers."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import settings, strategies

from omniimage.ranges import Ranged, ranges_of

EDGES = [
  *(math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, 1e-45, 1e-38, -1e-38, 1e-6, 0.999, 1.0, -1.0, 1e39, 1.7e308),
  *(-1, 0, 1, 2, 3, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63, 2**64 - 1, 2**64, -(2**63), 10**400, True, False),
]  # fmt: skip
REPEATABLE = settings(derandomize=True, database=None, deadline=None)  # a test that passes must not fail tomorrow

numbers = strategies.one_of(strategies.sampled_from(EDGES), strategies.integers(), strategies.floats())
words = strategies.one_of(
  numbers.map(str),
  strategies.sampled_from(["", "nan", "-inf", "1e400", "1e-400", "0x10", "1_0", "٣", " 7", "ten", "1,2"]),
)


def leaves(group: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
  """(path, value) of the numbers of a config, and of its tuples of numbers."""
  for name, value in group.items():
    here = (*path, name)
    if isinstance(value, Mapping):
      yield from leaves(value, here)
    elif _is_number(value[0] if isinstance(value, (tuple, list)) and value else value):
      yield here, value


def check_all(made: Ranged):
  """Every number of the settings is finite and in the range of its field."""
  ranges = ranges_of(type(made))
  for field in dataclasses.fields(made):
    value = getattr(made, field.name)
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else (value,):
      if isinstance(item, Ranged):
        check_all(item)
      elif _is_number(item):
        allowed = ranges[field.name]
        assert math.isfinite(item) and allowed.least <= item <= allowed.most, (field.name, item)


def _is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)
