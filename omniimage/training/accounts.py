"""Goodput: where the wall time of a run goes, over all the processes that have carried it on."""

import time
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

KINDS = (
  "steps",  # the device at work, or this process handing it work
  "compile",  # the first step of a stage, and passing from stage to stage
  "input",  # waiting for a batch
  "checkpoint",  # as long as a save or a restore holds up the run
  "evaluation",  # sample sheets
  "start",  # opening data and making parameters, each time a process takes the run up
  "lost",  # what a restart or a roll-back has to do again
)
LAST_STEPS = 64  # whose seconds are kept
SLOWEST = 8  # processes whose waiting for input the metrics name one by one


class Accounts:
  """A clock that is turned from one kind of work to the next. Seconds by kind, and by stage.

  Attributes:
    doing: the kind of work and the step it is for, replaced as one, so that another thread may read it.
    step_seconds: of the last steps, input included; not of what was compiled, saved or evaluated in them.
  """

  def __init__(self):
    self.kinds, self.stages = dict.fromkeys(KINDS, 0.0), {}
    self.doing, self.step_seconds = ("start", 0), deque(maxlen=LAST_STEPS)
    self._stage, self._since = None, time.monotonic()
    self._this_step, self._waited, self._steps = 0.0, 0.0, 0

  def turn_to(self, kind: str, step: int | None = None):
    """From now on time goes to `kind`, and where a step is given, for it."""
    self._book()
    if step is not None and step != self.doing[1]:
      if step == self.doing[1] + 1 and self._this_step:
        self.step_seconds.append(self._this_step)
      self._this_step = 0.0
      self._steps += 1
    self.doing = (kind, self.doing[1] if step is None else step)

  def enter(self, stage: str):
    """From now on time goes to `stage` too."""
    self._book()
    self._stage = stage
    self.step_seconds.clear()

  def input_wait(self) -> float:
    """Seconds a step that this process has waited for its batches, since it was last asked."""
    self._book()
    mean = self._waited / max(self._steps, 1)
    self._waited, self._steps = 0.0, 0
    return mean

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
    kind = self.doing[0]
    self.kinds[kind] += elapsed
    self._waited += elapsed * (kind == "input")
    self._this_step += elapsed * (kind in ("input", "steps"))
    if self._stage is not None:
      self.stages[self._stage] = self.stages.get(self._stage, 0.0) + elapsed


def input_metrics(seconds: Sequence[float]) -> dict[str, float]:
  """How long the processes of a run wait for their batches, and who stands out.

  `input_seconds` is the mean of all, `input_slowest` the process that waits longest, `input_apart` by how many seconds
  it is above the median of the others, `input_seconds/I` the seconds of process I, for those that wait longest.

  Args:
    seconds: of every process, in order, a step.
  """
  waits = np.asarray(seconds, np.float64)
  if waits.size == 1:
    return {"input_seconds": float(waits[0])}
  slowest = np.argsort(-waits, kind="stable")[:SLOWEST].tolist()
  others = np.delete(waits, slowest[0])
  return {
    "input_seconds": float(waits.mean()),
    "input_slowest": slowest[0],
    "input_apart": float(waits[slowest[0]] - np.median(others)),
    **{f"input_seconds/{process}": float(waits[process]) for process in sorted(slowest)},
  }


class Rate:
  """Images a second, smoothed."""

  def __init__(self):
    self._last, self.value = time.monotonic(), 0.0

  def tick(self, images: float) -> float:
    now = time.monotonic()
    rate, self._last = images / max(now - self._last, 1e-9), now
    self.value = rate if not self.value else 0.9 * self.value + 0.1 * rate
    return self.value
