"""The timeline of one computation, and the account of the whole program."""

from collections import Counter, defaultdict

import numpy as np

LEVELS = ("low", "likely", "high")  # the estimates that are run side by side
LIKELY = LEVELS.index("likely")


class Ledger:
  """What the whole program adds up to."""

  def __init__(self):
    self.flops = self.kernel_flops = self.hbm_bytes = 0.0
    self.received, self.synchronous, self.notes = Counter(), Counter(), Counter()
    self.rows = defaultdict(lambda: [0.0, 0])

  def row(self, path: str, kind: str, seconds: float, times: int):
    self.rows[path, kind][0] += seconds * times
    self.rows[path, kind][1] += times


class Schedule:
  """One computation's timeline. Times are vectors over LEVELS, in seconds since the computation began."""

  def __init__(self):
    self.now = np.zeros(len(LEVELS))
    self.free = defaultdict(lambda: np.zeros(len(LEVELS)))  # when each resource has done what was asked of it
    self.busy = Counter()  # seconds of work that each resource was given
    self.pending = {}  # (when it is there, what it is, path) of transfers under way, by name

  def work(self, seconds: np.ndarray):
    self.now = self.now + seconds

  def start(self, name: str, resource: str, seconds: float, kind: str, path: str):
    self.free[resource] = np.maximum(self.free[resource], self.now) + seconds
    self.busy[resource] += seconds
    self.pending[name] = (self.free[resource], kind, path)

  def until(self, moment: np.ndarray) -> float:
    """Stands still until a moment; how long, likely."""
    before, self.now = self.now, np.maximum(self.now, moment)
    return float((self.now - before)[LIKELY])

  def hold(self, resource: str, seconds: float) -> float:
    """A synchronous transfer, which first lets those before it finish; how long the core stands still, likely."""
    before = self.now
    self.now = self.free[resource] = np.maximum(self.free[resource], before) + seconds
    self.busy[resource] += seconds
    return float((self.now - before)[LIKELY])
