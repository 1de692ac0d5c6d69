"""Kinds of numbers that several groups of settings have, and what every group checks itself with."""

import difflib
from collections.abc import Collection
from typing import Annotated

from omniimage.errors import SettingsError, require
from omniimage.ranges import Range

MOST_CODES = 2**20  # of a codebook: the prior's table and head have a row for each, and logits of every position
MOST_PATCH_ROWS = 256  # of a canvas: masks have the square of its patches
MOST_STEPS = 2**31 - 1  # counters are int32

Steps = Annotated[int, Range(1, MOST_STEPS)]
StepsOrNone = Annotated[int, Range(0, MOST_STEPS)]
Width = Annotated[int, Range(1, 2**16)]
WideWidth = Annotated[int, Range(1, 2**18)]
Depth = Annotated[int, Range(1, 256)]
Heads = Annotated[int, Range(1, 1024)]
Patch = Annotated[int, Range(1, 1024)]  # pixels
PatchRows = Annotated[int, Range(0, MOST_PATCH_ROWS)]
Share = Annotated[float, Range(0, 1)]
PartialShare = Annotated[float, Range(0, 0.999)]  # float32 rounds what is closer to 1
Decay = Annotated[float, Range(0, 0.999999)]
Weight = Annotated[float, Range(0, 1e6)]
Rate = Annotated[float, Range(0, 100)]
Guidance = Annotated[float, Range(0, 100)]
Axis = Annotated[int, Range(-1, 2**20)]


def require_key(key: str, keys: Collection[str], path: str, listed: str = "the keys are"):
  """SettingsError, with the nearest of the keys or all of them, unless `path` has such a key."""
  if key not in keys:
    close = difflib.get_close_matches(key, keys, n=1)
    hint = f"did you mean {path}.{close[0]}?" if close else f"{listed} {', '.join(keys)}"
    raise SettingsError(f"{path}.{key} is not a setting; {hint}")


def divides(small: int, large: int, small_name: str, large_name: str):
  require(small > 0 and large % small == 0, f"{large_name}={large} must be a multiple of {small_name}={small}")
