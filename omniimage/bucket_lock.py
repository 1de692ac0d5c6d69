"""`omniimage.lock` in a bucket, where a write can be made to depend on what is there: of two who take the lock at the
same moment one is refused.

The object holds the same line of JSON as the file. Who holds the lock writes it again every few seconds, and each time
only over what it wrote itself. A second one who finds a name waits to see whether that happens, unless the line is of
this machine: there every run holds a lock of the kernel too, on a file in the folder for temporary ones, so that who
gets that knows the other to be dead.
"""

import contextlib
import errno
import hashlib
import os
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import tensorstore
from etils import epath

from omniimage import buckets, lock, strict_json
from omniimage.lock import Lock


class BucketLock(Lock):
  """As `Lock`, on an object."""

  def __init__(self, path: epath.Path, folder: str = "the workdir", flag: str = "--workdir"):
    super().__init__(path, folder, flag)
    self._generation, self._writing, self._object = b"", threading.Lock(), None

  def check(self):
    """UserError if another run has the lock, or the object has vanished. Asks nobody: the thread that writes it has."""
    self._raise_problem()

  def close(self):
    self._closing.set()
    if self._writing.acquire(timeout=lock.PATIENCE):  # else the storage does not answer
      with contextlib.suppress(OSError):
        if self._own is not None:
          self._write(b"")
      self._own = None
      self._writing.release()
    file, self._file = self._file, None
    if file is not None:
      os.close(file)

  def _take(self) -> str:
    self._file, on_this_machine = self._lock_here()
    if on_this_machine is False:
      return self._held_by(self._waited_for_name())
    holder, content = self._read()
    known_dead = on_this_machine and holder.get("machine") == self._machine()
    if content and not known_dead and self._is_written_again(holder):
      return self._held_by(self._read()[0])
    own = self._named()
    if not self._write(strict_json.dumps(own).encode() + b"\n", own["token"]):
      return self._held_by(self._waited_for_name())
    self._own = own
    threading.Thread(target=self._beat, daemon=True, name="lock").start()
    return ""

  def _beat(self):
    while not self._closing.wait(lock.BEAT):
      with self._writing, contextlib.suppress(OSError):  # the storage fails for a while; what is there then decides
        if self._own is None:
          return
        if self._write(strict_json.dumps(self._own).encode() + b"\n", self._own["token"]):
          continue
        holder, _ = self._read()
        self._problem = (
          self._held_by(holder) if holder else f"{self._path} has vanished, or was changed; the run cannot go on"
        )
        self._own = None
        return

  def _machine(self) -> str:
    """The same where processes see the lock of the kernel: also the file must be, which others may clear away."""
    return f"{super()._machine()} {os.fstat(self._file).st_ino}" if self._file is not None else ""

  def _lock_here(self) -> tuple[int | None, bool | None]:
    """A file, and whether the kernel grants a lock on it; None where there can be none."""
    name = f"omniimage.{hashlib.sha256(str(self._path).encode()).hexdigest()[:32]}.lock"
    try:
      file = os.open(Path(tempfile.gettempdir()) / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:  # of another user
      return None, None
    os.register_at_fork(after_in_child=self._disown)
    return file, lock.flock(file)

  def _waited_for_name(self) -> dict:
    stop = time.monotonic() + 10 * lock.NAMING
    while not (holder := self._read()[0]) and time.monotonic() < stop:
      time.sleep(lock.NAMING / 10)
    return holder

  def _is_written_again(self, holder: dict) -> bool:
    """Whether the object is, as by a process that lives. Waits for it if it was written a short while ago."""
    found, left = self._generation, lock.PATIENCE - self._age()
    if left > 0:
      lock.say_that_it_waits(self._path, holder, left)
    stop = time.monotonic() + left
    while time.monotonic() < stop:
      time.sleep(min(1.0, lock.PATIENCE / 10))
      _, content = self._read()
      if self._generation != found:
        return bool(content)  # else it has just let go
    return False

  def _age(self) -> float:
    """Seconds since it was written, by the service's clock."""
    probe = self._path.parent / f".now.{uuid.uuid4().hex}"

    def age() -> float:
      probe.write_bytes(b"")
      try:
        return probe.stat().mtime - self._path.stat().mtime
      except FileNotFoundError:
        return lock.PATIENCE
      finally:
        probe.unlink(missing_ok=True)

    return self._ask(age)

  def _read(self) -> tuple[dict, bytes]:
    """Who is named there, and all that is; what is written next takes the place of this."""
    found = self._ask(lambda: self._store().read(self._path.name).result(lock.PATIENCE))
    self._generation = found.stamp.generation  # also of what is not there; none would ask for no condition
    content = bytes(found.value) if found.state == "value" else b""
    return next(iter(strict_json.lines_in(content)), {}), content

  def _write(self, content: bytes, token: str = "") -> bool:
    """Over what was read or written last, and nothing else."""
    stamp = self._ask(
      lambda: self._store().write(self._path.name, content, if_equal=self._generation).result(lock.PATIENCE)
    ).generation
    if stamp:
      self._generation = stamp
      return True
    # A write whose answer was lost is made again by the library, and then finds itself.
    before = self._generation
    holder, _ = self._read()
    if token and holder.get("token") == token:
      return True
    self._generation = before
    return False

  def _store(self) -> tensorstore.KvStore:
    if self._object is None:
      self._object = tensorstore.KvStore.open(buckets.kvstore(self._path.parent)).result()
    return self._object

  def _ask(self, what) -> Any:
    """OSError where the storage does not answer."""
    try:
      return what()
    except Exception as error:  # of C++
      raise OSError(errno.EIO, " ".join(str(error).split())[:300]) from error
