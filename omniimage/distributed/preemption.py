"""Stopping when asked to: SIGTERM, which schedulers send before they take a machine away, or a TPU's notice of that.

A training asks after each step whether to stop. Where several processes train, all stop after the same one, whichever
of them was asked; `jax.distributed` sees to that, and has its own handler of SIGTERM since the processes joined.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

from omniimage.errors import UserError

RUN_AGAIN = 75  # exit code: EX_TEMPFAIL of sysexits.h, "the user is invited to retry"


class Preempted(UserError):
  """The run was asked to stop, and has saved what it did."""

  exit_code = RUN_AGAIN

  def __init__(self, step: int):
    super().__init__(f"stopped as asked after step {step}, and saved; the same command goes on from there")


@contextlib.contextmanager
def notice() -> Iterator[Callable[[int], bool]]:
  """Gives a function of the step just done: whether to save and stop now. Once true, it stays so.

  All processes must call it after every step. Where there is one process, a signal that came before is not seen: it
  has ended the process. Outside of the main thread, which alone may handle signals, one process is never asked to stop.
  """
  if jax.distributed.is_initialized():
    yield _Agreed()
  elif threading.current_thread() is threading.main_thread():
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    try:
      yield lambda step: asked.is_set()
    finally:
      signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
  else:
    yield lambda step: False


class _Agreed:
  """JAX says true at one step alone; a run that goes back from there must still know."""

  def __init__(self):
    self._reached = False

  def __call__(self, step: int) -> bool:
    self._reached = self._reached or multihost_utils.reached_preemption_sync_point(step)
    return self._reached
