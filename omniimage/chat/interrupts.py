"""Ctrl-C in a conversation: it stops an answer, and not the program."""

import contextlib
import signal
from collections.abc import Callable, Iterator

from omniimage import signals


@contextlib.contextmanager
def interrupting(act: Callable[[], None]) -> Iterator[None]:
  """In it SIGINT calls `act` in the main thread; a second one ends the program, as one outside of it does."""
  before, heard = signal.getsignal(signal.SIGINT), []

  def handle(number: int, frame: object):
    if heard:
      signals.end(number)
    heard.append(number)
    act()

  if before is signal.SIG_IGN:
    yield
    return
  signal.signal(signal.SIGINT, signals.counted(handle))
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, before)
