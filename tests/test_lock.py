"""One run at a time in a workdir, whatever became of the one before."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from omniimage import lock as module
from omniimage.errors import UserError
from omniimage.lock import Lock

HOLDS = """
import sys, time
from pathlib import Path
from omniimage.lock import Lock
Lock(Path(sys.argv[1])).take()
print("holds", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
  monkeypatch.setattr(module, "BEAT", 0.02)
  monkeypatch.setattr(module, "PATIENCE", 0.3)
  monkeypatch.setattr(module, "SETTLE", 0.1)
  monkeypatch.setattr(module, "NAMING", 0.1)


@pytest.fixture
def make(tmp_path):
  """Locks of one file, let go at the end."""
  made = []
  yield lambda: made.append(Lock(tmp_path / "lock")) or made[-1]
  for one in made:
    one.close()


@pytest.fixture
def without_locks(monkeypatch):
  """A file system that knows none."""

  def refuse(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

  monkeypatch.setattr(module.fcntl, "flock", refuse)


@pytest.fixture
def of_each_machine_alone(monkeypatch):
  """A file system whose locks others do not see."""
  monkeypatch.setattr(module.fcntl, "flock", lambda *_: None)


def written(tmp_path, **changes):
  """The lock of a process on another machine, last touched just now."""
  facts = {"host": "far", "process": 7, "since": "2026-01-02 03:04:05 +0000", "machine": "other", "token": "1"}
  (tmp_path / "lock").write_text(json.dumps({**facts, **changes}) + "\n")


def refused(lock) -> str:
  with pytest.raises(UserError) as why:
    lock.take()
  assert "\n" not in str(why.value)
  return str(why.value)


def test_the_second_is_told_who_holds_the_lock_until_it_is_let_go(make, tmp_path):
  first, second = make(), make()
  first.take()
  said = refused(second)
  assert f"the workdir {tmp_path} is in use by process {os.getpid()} on {module.socket.gethostname()}, since 2" in said
  first.close()
  second.take()


def test_a_process_that_was_killed_holds_it_no_more_at_once(make, tmp_path):
  process = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path / "lock")], stdout=subprocess.PIPE)
  process.stdout.readline()
  assert f"process {process.pid}" in refused(make())
  process.send_signal(signal.SIGKILL)
  process.wait()
  began = time.monotonic()
  make().take()
  assert time.monotonic() - began < module.PATIENCE


@pytest.mark.parametrize("text", [b"", b"\xff\xfe\0", b'{"host": "a", "proc', b"[3]\n", b'{"machine": 7}\n{}\n'])
def test_a_file_that_is_empty_or_damaged_holds_nobody_up_for_good(make, tmp_path, text):
  (tmp_path / "lock").write_bytes(text)
  first = make()
  first.take()
  assert f"process {os.getpid()}" in refused(make())
  (tmp_path / "lock").write_bytes(text)  # while it is held
  assert f"in use by a process that {tmp_path}/lock does not name" in refused(make())


def test_an_old_lock_of_another_machine_is_taken_over_at_once(make, tmp_path, capsys):
  written(tmp_path)
  os.utime(tmp_path / "lock", (1, 1))
  make().take()
  assert not capsys.readouterr().err


@pytest.mark.parametrize("world", ["without_locks", "of_each_machine_alone"])
def test_a_process_on_another_machine_is_dead_once_it_touches_its_lock_no_more(make, tmp_path, world, request, capsys):
  request.getfixturevalue(world)
  written(tmp_path)
  make().take()
  assert "to see whether process 7 on far lives" in capsys.readouterr().err


@pytest.mark.parametrize("world", ["without_locks", "of_each_machine_alone"])
def test_a_process_on_another_machine_that_touches_its_lock_lives(make, tmp_path, world, request):
  request.getfixturevalue(world)
  written(tmp_path)
  timer = threading.Timer(0.1, os.utime, [tmp_path / "lock"])
  timer.start()
  assert "in use by process 7 on far, since 2026-01-02 03:04:05" in refused(make())
  timer.join()


def test_where_nothing_can_be_locked_the_holder_is_known_by_its_touches(make, without_locks, caplog):
  make().take()
  assert "has no locks" in caplog.text
  assert f"process {os.getpid()}" in refused(make())


def test_where_nothing_can_be_locked_one_of_two_that_begin_at_once_wins(make, without_locks):
  locks, outcomes = [make(), make()], []

  def take(lock):
    try:
      lock.take()
      outcomes.append("taken")
    except UserError:
      outcomes.append("refused")

  threads = [threading.Thread(target=take, args=[lock]) for lock in locks]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sorted(outcomes) == ["refused", "taken"]


def test_who_was_taken_over_learns_of_it(make, tmp_path, of_each_machine_alone):
  first = make()
  first.take()
  first.check()
  written(tmp_path)
  time.sleep(5 * module.BEAT)
  with pytest.raises(UserError, match="in use by process 7 on far"):
    first.check()
  first.close()
  assert "far" in (tmp_path / "lock").read_text()  # not ours to empty


def test_a_workdir_that_has_vanished_or_been_replaced_is_named(make, tmp_path):
  first = make()
  first.take()
  (tmp_path / "lock").rename(tmp_path / "moved")
  with pytest.raises(UserError, match=f"the workdir {tmp_path} has vanished"):
    first.check()
  (tmp_path / "lock").touch()
  with pytest.raises(UserError, match="or another is in its place"):
    first.check()


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
def test_a_forked_worker_does_not_hold_the_lock_of_its_dead_parent(make, tmp_path):
  first = make()
  first.take()
  reader, writer = os.pipe()
  worker = os.fork()
  if worker == 0:
    os.write(writer, b"x")
    time.sleep(20)
    os._exit(0)
  try:
    os.read(reader, 1)
    first.close()
    make().take()
  finally:
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)


def test_a_lock_that_cannot_be_written_is_named(make, tmp_path, monkeypatch):
  def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(module.os, "pwrite", full)
  assert "lock cannot be written: No space left on device; mend that" in refused(make())
