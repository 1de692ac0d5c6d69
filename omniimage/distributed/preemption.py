"""Stopping when asked to: SIGTERM, which schedulers send before they take a machine away, or a TPU's notice of that.

A training asks after each step whether to stop. Before the first one there is nothing to save, and signals are left to
whoever had them. Where several processes train, all stop after the same step, whichever of them was asked;
`jax.distributed` sees to that, and has its own handler of SIGTERM since the processes joined.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping

import jax
from jax.experimental import multihost_utils

from omniimage import signals
from omniimage.errors import UserError
from omniimage.signals import RUN_AGAIN


class Preempted(UserError):
  """The run was asked to stop, and has saved what it did."""

  exit_code = RUN_AGAIN

  def __init__(self, step: int):
    super().__init__(f"stopped as asked after step {step}, and saved; the same command goes on from there")


@contextlib.contextmanager
def notice() -> Iterator[Callable[[int], bool]]:
  """Gives a function of the step just done: whether to save and stop now. Once true, it stays so.

  All processes must call it after every step. From the first call on, SIGTERM asks to stop, and a first SIGINT raises
  KeyboardInterrupt; until then, and for a second SIGINT, the handlers that were there are in force. Outside of the main
  thread, which alone may handle signals, one process is never asked to stop.
  """
  asked, several = threading.Event(), jax.distributed.is_initialized()
  agreed, before = _Agreed(), {}

  def interrupt(number, frame):
    _restore({signal.SIGINT: before[signal.SIGINT]})
    raise KeyboardInterrupt

  def asked_to_stop(step: int) -> bool:
    if not before and threading.current_thread() is threading.main_thread():
      handlers = {signal.SIGINT: interrupt} | ({} if several else {signal.SIGTERM: lambda *_: asked.set()})
      if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        del handlers[signal.SIGINT]
      before.update({number: signal.getsignal(number) for number in handlers})
      for number, handler in handlers.items():
        signal.signal(number, signals.counted(handler))
    return agreed(step) if several else asked.is_set()

  try:
    yield asked_to_stop
  finally:
    _restore(before)


def _restore(handlers: Mapping):
  for number, handler in handlers.items():
    signal.signal(number, signal.SIG_DFL if handler is None else handler)


class _Agreed:
  """JAX says true at one step alone; a run that goes back from there must still know."""

  def __init__(self):
    self._reached = False

  def __call__(self, step: int) -> bool:
    self._reached = self._reached or multihost_utils.reached_preemption_sync_point(step)
    return self._reached
