"""SIGINT and SIGTERM end a command with one line and its exit code from the first moment on, whatever it is doing.

Until there is something to save, a signal ends the process at once; of an exception an import or a library in C++ would
make a traceback, or lose it. Python calls handlers between two bytecodes of the main thread alone, and that may compile
for minutes; so a thread hears of signals too, through the file descriptor that Python writes their numbers to.

Imports nothing that takes long: a command begins with it.
"""

import collections
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable

INTERRUPTED, RUN_AGAIN = 130, 75  # exit codes: 128 + SIGINT, as shells have it; EX_TEMPFAIL of sysexits.h
ENDS = {
  signal.SIGINT: ("interrupted", INTERRUPTED),
  signal.SIGTERM: ("stopped at once, as asked; the same command can be run again", RUN_AGAIN),
}
SOON = 0.1  # seconds in which the main thread handles a signal, if it can

Handler = Callable[[int, object], None]

_handled: collections.Counter = collections.Counter()  # signals that the main thread saw, by number
_ending = threading.Lock()
_sockets = None  # kept open


def begin():
  """From now on SIGINT and SIGTERM end the process at once, but where another handler has taken their place since.

  SIGINT stays ignored where it is, as in the background of a script.
  """
  global _sockets
  if _sockets is not None:
    return
  _sockets = reader, writer = socket.socketpair()
  writer.setblocking(False)
  signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
  for number in ENDS:
    if signal.getsignal(number) is not signal.SIG_IGN:
      signal.signal(number, end)
  threading.Thread(target=_listen, args=(reader,), daemon=True, name="signals").start()


def end(number: int, frame: object = None):
  """Ends the process with the line and the exit code of a signal."""
  message, code = ENDS[signal.Signals(number)]
  if _ending.acquire(blocking=False):
    with contextlib.suppress(OSError):
      os.write(2, f"{chr(10) * os.isatty(2)}error: {message}\n".encode())  # below a progress bar
    os._exit(code)


def ignore():
  """From now on SIGINT and SIGTERM do nothing."""
  for number in ENDS:
    signal.signal(number, signal.SIG_IGN)


def counted(handler: Handler) -> Handler:
  """A handler to put in the place of `end`, for a while: what it has seen ends nothing."""

  def handle(number: int, frame: object):
    _handled[number] += 1
    handler(number, frame)

  return handle


def _listen(reader: socket.socket):
  heard = collections.Counter()
  while number := reader.recv(1):
    heard[number[0]] += 1
    ours = signal.getsignal(number[0]) is end
    time.sleep(SOON)
    unseen = heard[number[0]] > _handled[number[0]]
    if ours and unseen and number[0] in ENDS and signal.getsignal(number[0]) is end:
      end(number[0])
