"""How many of the records read of late could not be read: one bad file is passed over, a storage that fails is not."""

import threading
from collections import deque

from omniimage.errors import UserError

WINDOW = 512  # records, the last ones of this process
ENOUGH = 64  # of them, before their share says anything


class Readings:
  """Whether each of the last records was good. Threads may share it."""

  def __init__(self):
    self._good: deque[bool] = deque(maxlen=WINDOW)
    self._last_problem, self._lock = "", threading.Lock()

  def note(self, problem: str = ""):
    """A record that was read, or what was wrong with it."""
    with self._lock:
      self._good.append(not problem)
      self._last_problem = problem or self._last_problem

  @property
  def bad_share(self) -> float:
    with self._lock:
      return 1 - sum(self._good) / len(self._good) if self._good else 0.0

  def check(self, most: float):
    """Raises UserError where more than this share of the last records was bad."""
    share = self.bad_share
    if share > most and len(self._good) >= ENOUGH:
      raise UserError(
        f"{share:.0%} of the last {len(self._good)} records could not be read, and data.max_bad_records={most:g} is "
        f"the largest share that may be; the last: {self._last_problem}. Mend that, and the same command goes on from "
        "the last checkpoint"
      )
