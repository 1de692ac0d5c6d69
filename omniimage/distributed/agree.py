"""What the processes of a run tell each other, so that all of them decide alike. All must call these together."""

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from omniimage.errors import UserError


def from_each(text: str) -> list[str]:
  """The text of every process, on every process."""
  if jax.process_count() == 1:
    return [text]
  own = np.frombuffer(text.encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(own.size)).ravel()
  padded = np.pad(own, (0, sizes.max() - own.size))
  return [row[:size].tobytes().decode() for row, size in zip(multihost_utils.process_allgather(padded), sizes)]


def number_of_each(number: float) -> np.ndarray:
  """The number of every process, (processes,) float32, on every process."""
  if jax.process_count() == 1:
    return np.float32([number])
  return multihost_utils.process_allgather(np.float32(number)).ravel()


def first_says(act: Callable[[], Any]) -> Any:
  """What `act` returns on process 0, which alone calls it: small JSON. UserError on all where it raises one there."""
  if jax.process_count() == 1:
    return act()
  said = failure = None
  if jax.process_index() == 0:
    try:
      said = act()
    except (UserError, OSError) as error:
      said, failure = str(error), error
  said, failed = json.loads(from_each(json.dumps([said, failure is not None]))[0])
  if failed:
    raise failure or UserError(said)
  return said
