"""A run's log file has at length what the terminal has in one line, and holds nothing up."""

import ctypes
import logging
import sys
import threading
import time

import pytest

from omniimage.training import log_file
from omniimage.training.log_file import LogFile


@pytest.fixture
def log(tmp_path):
  made = LogFile(tmp_path / "logs" / "0.log")
  yield made
  made.close()


def in_thread(act, name: str):
  thread = threading.Thread(target=act, name=name)
  thread.start()
  thread.join()


def fail():
  raise PermissionError("not permitted")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_fails_in_a_thread_of_a_library_is_in_the_log_alone_and_in_one_of_ours_on_the_terminal(log, monkeypatch):
  shown = []
  monkeypatch.setattr(log, "_hooks", (shown.append, sys.__unraisablehook__))
  in_thread(fail, "of a library")
  assert not shown
  monkeypatch.setattr(log_file, "OURS", __file__)
  in_thread(fail, "ours")
  assert len(shown) == 1
  log.close()
  text = log.path.read_text()
  assert "ERROR of a library: Traceback" in text and "PermissionError: not permitted" in text and "ours" not in text


def test_what_fails_where_c_calls_python_is_in_the_log_alone_but_in_the_main_thread(log, monkeypatch):
  """As TensorStore does, from threads of its own."""
  shown = []
  monkeypatch.setattr(log, "_hooks", (threading.__excepthook__, shown.append))

  @ctypes.CFUNCTYPE(None)
  def called_by_c():
    raise PermissionError("of C")

  in_thread(called_by_c, "of C")
  assert not shown
  called_by_c()
  assert len(shown) == 1
  log.close()
  text = log.path.read_text()
  assert "ERROR of C: Traceback" in text and text.count("PermissionError: of C") == 1


def test_warnings_and_errors_are_in_it_with_time_and_traceback_until_it_is_closed(log):
  try:
    fail()
  except PermissionError:
    logging.getLogger("absl").exception("a save failed")
  logging.getLogger("absl").info("not this")
  log.close()
  logging.getLogger("absl").warning("nor this")
  text = log.path.read_text()
  assert "ERROR MainThread: a save failed\nTraceback" in text and "PermissionError: not permitted" in text
  assert "this" not in text and threading.excepthook != log._in_thread


class Disk:
  """A file that cannot be written for a while."""

  closed = False

  def __init__(self, file):
    self.file, self.full = file, True

  def write(self, text: bytes) -> int:
    if self.full:
      raise OSError(28, "No space left on device")
    return self.file.write(text[:7])

  def close(self):
    self.file.close()


def test_what_a_full_disk_refuses_is_written_when_there_is_room_again(log):
  log.file = disk = Disk(log.file)
  logging.warning("first")
  time.sleep(0.1)
  disk.full = False
  logging.warning("second")
  log.close()
  lines = log.path.read_text().splitlines()
  assert [line.rpartition(" ")[2] for line in lines] == ["first", "second"]


def test_a_disk_that_hangs_holds_up_neither_a_warning_nor_the_end(log, monkeypatch):
  monkeypatch.setattr(log_file, "LAST_WORDS", 0.1)
  file, mended = log.file, threading.Event()
  log.file = disk = Disk(file)
  disk.full, disk.write = False, lambda text: mended.wait() and file.write(text)
  began = time.monotonic()
  for number in range(2 * log_file.MOST_KEPT):
    logging.warning("warning %d", number)
  log.close()
  assert time.monotonic() - began < 5 and log.path.read_text() == ""
  mended.set()
  log._writer.join(5)
  assert "warning 0" in log.path.read_text()
