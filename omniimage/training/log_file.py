"""What a process has to say at length, in a file of its run: warnings, errors with their tracebacks, stacks of threads.

The terminal has one line of each. A thread writes the file, so that a disk that hangs holds up nothing else.
"""

import contextlib
import logging
import queue
import sys
import threading
import time
import traceback
from pathlib import Path

import omniimage

OURS = str(Path(omniimage.__file__).parent)
LAST_WORDS = 5.0  # seconds that writing may take at the end
MOST_KEPT = 1000  # entries that wait for the disk
MOST_BYTES = 2**20  # the last of those that it has refused


class LogFile(logging.Handler):
  """Appends to a file until it is closed. What cannot be written is tried again with what comes next, and at the end: a
  disk is often full only for as long as the files of the save that failed are there.

  Tracebacks of threads that libraries have started are written here alone: what has failed there is also raised where
  the run waits for it, and told in one line.
  """

  def __init__(self, path: Path):
    super().__init__(logging.WARNING)
    self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(threadName)s: %(message)s"))
    path.parent.mkdir(exist_ok=True)
    self.path, self.file = path, path.open("ab", buffering=0)
    self._entries, self._hooks = queue.Queue(MOST_KEPT), (threading.excepthook, sys.unraisablehook)
    self._writer = threading.Thread(target=self._write, daemon=True, name="log")
    self._writer.start()
    # Python prints warnings by itself only where there is no handler at all, as in a notebook.
    self._handlers = [self] if logging.root.handlers else [self, logging.lastResort]
    for handler in self._handlers:
      logging.root.addHandler(handler)
    threading.excepthook, sys.unraisablehook = self._in_thread, self._in_foreign_thread

  def emit(self, record: logging.LogRecord):
    self.add(self.format(record))

  def add(self, text: str):
    """Writes it soon. Never waits."""
    with contextlib.suppress(queue.Full):
      self._entries.put_nowait(f"{text.rstrip()}\n".encode(errors="backslashreplace"))

  def close(self):
    for handler in self._handlers:
      logging.root.removeHandler(handler)
    self._handlers = []
    if not self.file.closed and threading.excepthook == self._in_thread:
      threading.excepthook, sys.unraisablehook = self._hooks
    with contextlib.suppress(queue.Full, queue.Empty):
      if self._entries.full():
        self._entries.get_nowait()
      self._entries.put_nowait(None)
    self._writer.join(LAST_WORDS)
    if not self._writer.is_alive():
      self.file.close()
    super().close()

  def _write(self):
    unwritten = b""
    while (entry := self._entries.get()) is not None:
      unwritten = self._written((unwritten + entry)[-MOST_BYTES:])
    self._written(unwritten)

  def _written(self, text: bytes) -> bytes:
    """What is left of it."""
    with contextlib.suppress(OSError):
      while text:
        text = text[self.file.write(text) :]
    return text

  def _in_thread(self, raised: threading.ExceptHookArgs):
    if not self._told(raised):
      self._hooks[0](raised)

  def _in_foreign_thread(self, raised):
    """Of a library in C++ that calls Python from a thread of its own."""
    if threading.current_thread() is threading.main_thread() or not self._told(raised):
      self._hooks[1](raised)

  def _told(self, raised) -> bool:
    """Whether it was a library's, and is in the log now."""
    frames = raised.exc_traceback
    if any(frame.f_code.co_filename.startswith(OURS) for frame, _ in traceback.walk_tb(frames)):
      return False
    text = "".join(traceback.format_exception(raised.exc_type, raised.exc_value, frames))
    self.add(f"{time.strftime('%Y-%m-%d %H:%M:%S')} ERROR {threading.current_thread().name}: {text}")
    return True


def stacks() -> str:
  """Where every thread of Python is, the main one first, but for the one that asks."""
  frames, names = sys._current_frames(), {thread.ident: thread.name for thread in threading.enumerate()}
  del frames[threading.get_ident()]
  order = sorted(frames, key=lambda ident: ident != threading.main_thread().ident)
  return "\n".join(
    f"thread {names.get(ident, ident)}, most recent call last:\n{''.join(traceback.format_stack(frames[ident]))}"
    for ident in order
  )
