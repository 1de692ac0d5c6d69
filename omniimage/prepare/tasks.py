"""Tasks: what one process does at a time, by whatever runs it."""

from collections.abc import Callable
from typing import Any, Protocol

Tell = Callable[[int], None]  # called with the number of rows that were done since the last call


class Task(Protocol):
  """Picklable.

  Attributes:
    name: for a person, where something goes wrong with it.
  """

  @property
  def name(self) -> str: ...


# Does one task, and does nothing where it has been done. Picklable; what a task raises ends everything.
Work = Callable[[Any, Tell], None]


def tell_nobody(rows: int):
  pass
