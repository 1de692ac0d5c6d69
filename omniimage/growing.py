"""Files of a workdir in a bucket that grow: metrics, faults, bad records, what TensorBoard reads.

Nothing can be added to the end of an object. So such files are written on this machine, and brought to the bucket
whole now and then, and each time before a checkpoint is saved: what a kill loses of them is of steps that are made
again.
"""

import contextlib
import shutil
import tempfile
import threading
import time
from pathlib import Path

from etils import epath

SECONDS = 30.0  # between two times, and longer where bringing them takes more than a twentieth of it
SHARE = 20


class Growing:
  """Copies on this machine of files below a folder in a bucket. Of the bucket, one process writes each of them."""

  def __init__(self, root: epath.Path):
    self._root, self._folder = root, Path(tempfile.mkdtemp(prefix="omniimage."))
    self._brought: dict[Path, tuple[int, int]] = {}
    self._bringing, self._closing = threading.Lock(), threading.Event()
    threading.Thread(target=self._now_and_then, daemon=True, name="growing").start()

  def place(self, path: epath.Path) -> Path:
    """Where to write what will be at `path`, a file, or a folder with files of lines. What is there already is here."""
    here = self._folder / path.relative_to(self._root)
    for source in [path] if path.suffix else path.glob("*.jsonl"):
      self._fetch(source)
    (here.parent if path.suffix else here).mkdir(parents=True, exist_ok=True)
    return here

  def bring(self):
    """All that has grown is in the bucket when this returns."""
    with self._bringing:
      for here in sorted(path for path in self._folder.rglob("*") if path.is_file() and path.suffix != ".tmp"):
        seen = _signature(here)
        if self._brought.get(here) != seen:
          (self._root / here.relative_to(self._folder).as_posix()).write_bytes(here.read_bytes())
          self._brought[here] = seen

  def close(self):
    """Removes the copies; `bring` comes first."""
    self._closing.set()
    with self._bringing:
      shutil.rmtree(self._folder, ignore_errors=True)

  def _fetch(self, source: epath.Path):
    here = self._folder / source.relative_to(self._root)
    if not here.exists():
      with contextlib.suppress(FileNotFoundError):
        content = source.read_bytes()
        here.parent.mkdir(parents=True, exist_ok=True)
        here.write_bytes(content)
        self._brought[here] = _signature(here)

  def _now_and_then(self):
    pause = SECONDS
    while not self._closing.wait(pause):
      began = time.monotonic()
      with contextlib.suppress(Exception):  # the storage fails for a while; before a checkpoint it is told
        self.bring()
      pause = max(SECONDS, SHARE * (time.monotonic() - began))


def _signature(path: Path) -> tuple[int, int]:
  found = path.stat()
  return found.st_mtime_ns, found.st_size
