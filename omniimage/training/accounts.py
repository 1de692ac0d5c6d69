"""Goodput: where the wall time of a run goes, over all the processes that have carried it on."""

import time
from collections.abc import Mapping

KINDS = (
  "steps",  # the device at work, or this process handing it work
  "compile",  # the first step of a stage, and passing from stage to stage
  "input",  # waiting for a batch
  "checkpoint",  # as long as a save or a restore holds up the run
  "evaluation",  # sample sheets
  "start",  # opening data and making parameters, each time a process takes the run up
  "lost",  # what a restart or a roll-back has to do again
)


class Accounts:
  """A clock that is turned from one kind of work to the next. Seconds by kind, and by stage."""

  def __init__(self):
    self.kinds, self.stages = dict.fromkeys(KINDS, 0.0), {}
    self._kind, self._stage, self._since = "start", None, time.monotonic()

  def turn_to(self, kind: str):
    """From now on time goes to `kind`."""
    self._book()
    self._kind = kind

  def enter(self, stage: str):
    """From now on time goes to `stage` too."""
    self._book()
    self._stage = stage

  def go_on(self, kinds: Mapping[str, float], stages: Mapping[str, float], lost: float):
    """Takes up a run whose checkpoint stood at these seconds; `lost` are what its last process did after it."""
    self._book()
    self.kinds = {kind: self.kinds[kind] + kinds.get(kind, 0.0) for kind in KINDS}
    self.kinds["lost"] += lost
    self.stages = dict(stages)

  def go_back(self, kinds: Mapping[str, float], stages: Mapping[str, float]):
    """The run stands again at a checkpoint that stood at these seconds; what came after is lost."""
    lost = self.total - sum(kinds.values())
    self.kinds = {kind: kinds.get(kind, 0.0) for kind in KINDS}
    self.kinds["lost"] += lost
    self.stages = dict(stages)

  @property
  def total(self) -> float:
    self._book()
    return sum(self.kinds.values())

  def metrics(self) -> dict[str, float]:
    """`wall_seconds` of the whole run, and the share of each kind."""
    total = self.total
    return {"wall_seconds": total, **{f"goodput/{kind}": seconds / total for kind, seconds in self.kinds.items()}}

  def _book(self):
    now = time.monotonic()
    elapsed, self._since = now - self._since, now
    self.kinds[self._kind] += elapsed
    if self._stage is not None:
      self.stages[self._stage] = self.stages.get(self._stage, 0.0) + elapsed


class Rate:
  """Images a second, smoothed."""

  def __init__(self):
    self._last, self.value = time.monotonic(), 0.0

  def tick(self, images: float) -> float:
    now = time.monotonic()
    rate, self._last = images / max(now - self._last, 1e-9), now
    self.value = rate if not self.value else 0.9 * self.value + 0.1 * rate
    return self.value
