"""Names the process that the others wait for: in what it hangs, at which step, since when.

A thread of each process looks every two seconds at what `Accounts` was last turned to, and says so to process 0, over
the connections of `distributed/watch.py`. Process 0 judges: those hang that are farthest behind, if they have been
there for too long, and those that say nothing any more, as a process that was stopped. Process 0 itself is heard by all
others. No device is asked, and the training thread does nothing for it.
"""

import dataclasses
import faulthandler
import math
import os
import statistics
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from absl import logging

from omniimage.distributed import watch
from omniimage.signals import RUN_AGAIN
from omniimage.training.accounts import Accounts
from omniimage.training.log_file import LogFile, stacks

BEAT = 2.0  # seconds between two looks
FLOOR = 20.0  # seconds that a step and the wait for its input may always take
TIMES = 10  # and so many times the median of the last steps
KNOWN_STEPS = 5  # that a median is of, at least
LATER = 50.0  # seconds for what has no median: the first steps, and checkpoints
# Seconds without a word. Less than FLOOR: who is silent is to be named before those that wait for it.
SILENT = 15.0
GIVEN_UP = 60.0  # seconds without a word after which the others end; after 80 to 105 s JAX would abort them
NAMED = 3  # processes by name, of many
ENDED = "ended"
# What a process does, as words for a step; in the order in which it comes in a step.
DOING = {
  "start": "its start",
  "input": "the input of step {}",
  "compile": "the compilation of step {}",
  "steps": "step {}",
  "checkpoint": "the checkpoint of step {}",
  "evaluation": "the samples after step {}",
  ENDED: "its end",
}
ORDER = tuple(DOING)
LIMITED = ("input", "steps", "checkpoint")  # to compile may take an hour


@dataclasses.dataclass
class Seen:
  """What a process was last known to do.

  Attributes:
    since, heard: when it began with that, and when it last said so, by the clock of who has heard it.
    seconds, silent: since then.
  """

  kind: str = "start"
  step: int = 0
  since: float = dataclasses.field(default_factory=time.time)
  heard: float = dataclasses.field(default_factory=time.time)
  seconds: float = 0.0
  silent: float = 0.0

  def does(self, kind: str, step: int):
    self.heard, self.silent = time.time(), 0.0
    if (kind, step) != (self.kind, self.step):
      self.kind, self.step, self.since, self.seconds = kind, step, time.time(), 0.0

  def wait(self, seconds: float):
    self.seconds += seconds
    self.silent += seconds

  @property
  def is_silent(self) -> bool:
    return self.silent > SILENT and self.kind != ENDED

  @property
  def progress(self) -> tuple[int, int]:
    return self.step, ORDER.index(self.kind)


def allowed(step_seconds: Sequence[float]) -> dict[str, float]:
  """Seconds after which a process hangs, by what of LIMITED it does, where steps have taken so long."""
  known = len(step_seconds) >= KNOWN_STEPS
  step = max(FLOOR, TIMES * statistics.median(step_seconds)) if known else LATER
  return dict(zip(LIMITED, (step, step, LATER), strict=True))


def hanging(seen: Mapping[int, Seen], limits: Mapping[str, float]) -> list[int]:
  """The processes that all wait for. Who is ahead of another waits for it, in a collective or on the way there."""
  if silent := [index for index, process in seen.items() if process.is_silent]:
    return silent
  last = min(process.progress for process in seen.values())
  behind = [index for index, process in seen.items() if process.progress == last]
  return [index for index in behind if seen[index].seconds > limits.get(seen[index].kind, math.inf)]


def too_long(process: Seen, end_after: float) -> bool:
  """Whether a process has hung, or been silent, for so long that the run ends. `end_after`: as in `Hangs`."""
  if process.kind not in LIMITED:  # it may be lowering a large model, in C code that holds the interpreter
    return False
  if process.is_silent:
    return process.silent > min(GIVEN_UP, end_after or math.inf)
  return 0 < end_after < process.seconds


class Hangs:
  """Watches until it is closed. What it finds it logs, in all processes; the one that hangs also writes its stacks.

  Args:
    end_after: seconds that a process may hang before the run ends with exit code 75; 0: it may hang as long as it does.
  """

  def __init__(self, accounts: Accounts, log: LogFile, end_after: float):
    self._accounts, self._log, self._end_after = accounts, log, end_after
    self._watch = watch.current()
    self._index = self._watch.index if self._watch else 0
    self._seen, self._told = {self._index: Seen()}, {}
    self._lock, self._closing = threading.Lock(), threading.Event()
    if self._watch:
      self._watch.hear_notes(self._hear)
    self._thread = threading.Thread(target=self._run, daemon=True, name="hangs")
    self._thread.start()

  def close(self):
    self._closing.set()
    self._thread.join()
    faulthandler.cancel_dump_traceback_later()

  def _run(self):
    last = time.monotonic()
    while not self._closing.wait(BEAT):
      now = time.monotonic()
      # A process that was stopped itself must not take that time for the others' silence.
      elapsed, last = min(now - last, 2 * BEAT), now
      # Writes the stacks where this thread cannot run: code in C may hold the interpreter.
      faulthandler.dump_traceback_later(SILENT, file=self._log.file)
      self._look(*self._accounts.doing, elapsed)
    self._say_doing(ENDED, self._accounts.doing[1])

  def _look(self, kind: str, step: int, elapsed: float):
    self._say_doing(kind, step)
    with self._lock:
      for process in self._seen.values():
        process.wait(elapsed)
      self._seen[self._index].does(kind, step)
      seen = {index: dataclasses.replace(process) for index, process in self._seen.items()}
    usual = list(self._accounts.step_seconds)
    if self._index == 0:
      found = hanging(seen, allowed(usual))
    else:
      found = [index for index in seen if index == 0 and seen[index].is_silent]
    named_before = set(self._told)
    self._tell(found, seen, usual)
    if found and found[0] in named_before and too_long(seen[found[0]], self._end_after):  # its stacks are written
      self._end(found[0], _what(seen[found[0]]))

  def _say_doing(self, kind: str, step: int):
    if self._watch:
      self._watch.note("doing", kind, step)

  def _hear(self, other: int, words: list[str]):
    match words:
      case ["doing", kind, step] if kind in ORDER:
        with self._lock:
          self._seen.setdefault(other, Seen()).does(kind, int(step))
      case ["hang", indices, *text]:
        self._say(" ".join(text), self._index in map(int, indices.split(",")))
      case ["on", *text]:
        self._say(" ".join(text))

  def _tell(self, found: Sequence[int], seen: Mapping[int, Seen], usual: Sequence[float]):
    """Says, once, who hangs; and who does so no more."""
    for index in [index for index in self._told if index not in found]:
      silent, *progress, since = self._told.pop(index)
      if silent or seen[index].progress != tuple(progress):  # else it waits for one that is silent now
        text = f"{self._names([index])} goes on, after {time.time() - since:.0f} s"
        self._say(text)
        self._note("on", text)
    told = {index: (seen[index].is_silent, *seen[index].progress) for index in found}
    if new := [index for index in found if self._told.get(index, ())[:-1] != told[index]]:
      process = seen[new[0]]
      text = f"{self._names(new)} {_what(process, len(new) > 1)}"
      if process.kind in ("input", "steps") and not process.is_silent and len(usual) >= KNOWN_STEPS:
        text += f"; a step takes {statistics.median(usual):.2g} s"
      self._told |= {index: (*told[index], seen[index].heard if told[index][0] else seen[index].since) for index in new}
      self._say(text, self._index in new)
      self._note("hang", ",".join(map(str, new)), text)

  def _note(self, *words: str):
    if self._watch and self._index == 0:
      self._watch.note(*words)

  def _names(self, indices: Sequence[int]) -> str:
    hosts = self._watch.hosts if self._watch else {0: watch.host_name()}
    names = [f"{index} ({hosts[index]})" for index in indices[:NAMED]]
    more = f" and {len(indices) - NAMED} more" if len(indices) > NAMED else ""
    return f"process{'es' * (len(indices) > 1)} {', '.join(names)}{more}"

  def _say(self, text: str, own: bool = False):
    """`own`: this process hangs. Its stacks are found in a thread, since a disk that hangs may hold their source."""
    logging.warning("%s%s", text, f"; its stacks: {self._log.path}" if own else "")
    if own:
      threading.Thread(target=lambda: self._log.add(stacks()), daemon=True, name="stacks").start()

  def _end(self, index: int, what: str):
    if self._watch:
      self._watch.end(index, what)
    else:
      print(f"\nerror: this process {what}; the same command goes on from the last checkpoint", file=sys.stderr)
      sys.stderr.flush()
      os._exit(RUN_AGAIN)


def _what(process: Seen, several: bool = False) -> str:
  since = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(process.heard if process.is_silent else process.since))
  doing = DOING[process.kind].format(process.step)
  if process.is_silent:
    return f"{'have' if several else 'has'} said nothing since {since}, then in {doing}"
  return f"hang{'s' * (not several)} in {doing} since {since}"
