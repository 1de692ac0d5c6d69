"""One run at a time in a workdir: a lock that the kernel lets go of when its process dies, however it does.

The file holds a line of JSON: host, process and time, for the message of who comes second, and what machine that is. A
lock of the kernel (flock) is held on it. Where that is refused to the second one, the first lives. Where it is granted,
or the file system has no locks, the first may yet live on another machine: NFS may be mounted with locks of its host
alone, and a mounted bucket has no others. So who holds the lock touches the file every few seconds; if it was touched a
short while ago, and not from here, the second one waits to see whether it is touched again.

Process ids decide nothing: they are used again, and containers have their own. A lock that is let go is an empty file;
one that is damaged names nobody, and for the rest counts like any other.
"""

import contextlib
import errno
import fcntl
import os
import socket
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from absl import logging

from omniimage import strict_json
from omniimage.errors import UserError

BEAT = 10.0  # seconds between touches
PATIENCE = 60.0  # seconds without one, after which a process on another machine is dead
SETTLE = 2.0  # seconds after which, where nothing can be locked, the last of several who wrote their names has won
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
NAMING = 1.0  # seconds in which who has the lock has written its name


class Lock:
  """Of several processes of one run the first holds it, for all. Ends with `close`, or with the process.

  Messages say what its folder is and which flag chooses another.
  """

  def __init__(self, path: Path, folder: str = "the workdir", flag: str = "--workdir"):
    self._path, self._folder, self._flag = path, folder, flag
    self._file, self._own, self._problem = None, None, None
    self._closing = threading.Event()

  def take(self):
    """All processes must call it; returns once the run holds the lock. UserError, in all of them, if another does."""
    from omniimage.distributed.agree import first_says  # jax, which takes the devices, is for runs alone

    if problem := first_says(self._try):
      raise UserError(problem)

  def take_alone(self):
    """The same for a command that is one process."""
    if problem := self._try():
      raise UserError(problem)

  def check(self):
    """UserError if the workdir has vanished or has been taken over meanwhile. Costs a look at the file."""
    self._raise_problem()
    if self._file is not None and not self._is_there():
      raise UserError(
        f"{self._folder} {self._path.parent} has vanished, or another is in its place; the run cannot go on"
      )

  def close(self):
    """Lets go of the lock."""
    self._closing.set()
    file, self._file = self._file, None
    if file is not None:
      with contextlib.suppress(OSError):  # read-only by now
        if self._own and strict_json.read_lines(self._path) == [self._own]:
          os.ftruncate(file, 0)
      os.close(file)

  def _raise_problem(self):
    if self._problem:
      raise UserError(self._problem)

  def _try(self) -> str:
    """Why the lock is not held, in words; empty once it is."""
    try:
      problem = self._take()
    except OSError as error:
      problem = f"{self._path} cannot be written: {error.strerror}; mend that, or choose another {self._flag}"
    if problem:
      self.close()
    return problem

  def _take(self) -> str:
    """Why not, in words; empty once the lock is held."""
    self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    os.register_at_fork(after_in_child=self._disown)
    locks = flock(self._file)
    if locks is False:
      return self._held_by(_holder(self._path, NAMING))
    holder, written = _holder(self._path), os.fstat(self._file).st_size
    known_dead = locks and holder.get("machine") == self._machine()
    if written and not known_dead and _beats(self._path, holder):
      return self._held_by(holder)
    self._own = self._named()
    os.ftruncate(self._file, 0)
    os.pwrite(self._file, strict_json.dumps(self._own).encode() + b"\n", 0)
    os.fsync(self._file)
    if locks is None:
      logging.warning("the file system of %s has no locks; start a run there only once", self._path.parent)
      time.sleep(SETTLE)
      if (now := _holder(self._path)) != self._own:
        return self._held_by(now)
    threading.Thread(target=self._beat, daemon=True, name="lock").start()
    return ""

  def _named(self) -> dict[str, Any]:
    """What this process writes of itself."""
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return {
      "host": socket.gethostname(), "process": os.getpid(), "since": since, "machine": self._machine(),
      "token": uuid.uuid4().hex,
    }  # fmt: skip

  def _held_by(self, holder: dict) -> str:
    process, host, since = (holder.get(name) for name in ("process", "host", "since"))
    who = f"process {process} on {host}, since {since}" if process else f"a process that {self._path} does not name"
    return (
      f"{self._folder} {self._path.parent} is in use by {who}; let it end or stop it, or choose another {self._flag}"
    )

  def _beat(self):
    while not self._closing.wait(BEAT):
      with contextlib.suppress(OSError):  # vanished or read-only, which others notice
        holder = _holder(self._path)
        if holder.get("token", self._own["token"]) != self._own["token"]:
          self._problem = self._held_by(holder)
          return
        os.utime(self._path)

  def _machine(self) -> str:
    """The same where processes see each other's locks for sure: the same kernel, and the same mount."""
    try:
      kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
      kernel = socket.gethostname()
    return f"{kernel} {os.fstat(self._file).st_dev}"

  def _is_there(self) -> bool:
    try:
      return os.path.samestat(os.stat(self._path), os.fstat(self._file))
    except (FileNotFoundError, NotADirectoryError):
      return False
    except OSError:  # of a disk that fails for a moment
      return True

  def _disown(self):
    """In a forked worker, which would hold the lock when this process is dead."""
    file, self._file = self._file, None
    if file is not None:
      os.close(file)


def flock(file: int) -> bool | None:
  """Whether the lock was granted; None where the file system knows none."""
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    if error.errno in NO_LOCKS:
      return None
    if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
      return False
    raise
  return True


def _holder(path: Path, seconds: float = 0.0) -> dict:
  """What the file says; {} if it names nobody, even after so many seconds, in which a name may be written."""
  stop = time.monotonic() + seconds
  while not (lines := strict_json.read_lines(path)) and time.monotonic() < stop:
    time.sleep(0.05)
  return lines[0] if lines else {}


def _beats(path: Path, holder: dict) -> bool:
  """Whether the file is touched, as by a process that lives. Waits for it if it was touched a short while ago."""
  last = _touched(path)
  left = PATIENCE - (_now(path.parent) - last)  # a clock of the file system, like that of the touch
  stop = time.monotonic() + min(left, PATIENCE)
  if left > 0:
    say_that_it_waits(path, holder, min(left, PATIENCE))
  while time.monotonic() < stop:
    time.sleep(min(1.0, PATIENCE / 10))
    if _touched(path) != last:
      return path.stat().st_size > 0  # else it has just let go
  return False


def say_that_it_waits(path: Path, holder: dict, seconds: float):
  name = f"process {holder.get('process')} on {holder.get('host')}" if holder else "the process that wrote it"
  print(f"{path}: waits up to {seconds:.0f} s to see whether {name} lives", file=sys.stderr, flush=True)


def _touched(path: Path) -> float:
  """Seconds; of the file as it is opened, which a network file system asks its server for."""
  with path.open("rb") as file:
    return os.fstat(file.fileno()).st_mtime


def _now(folder: Path) -> float:
  """The time of the file system."""
  probe = folder / f".now.{uuid.uuid4().hex}"
  probe.touch()
  try:
    return probe.stat().st_mtime
  finally:
    probe.unlink(missing_ok=True)
