"""The names in a directory of checkpoints, and what is renamed and deleted there. `omniimage.checkpoint` says what a
checkpoint holds, `omniimage.bucket_folders` how the same is done in a bucket.

  STEP          a checkpoint; without its marker, one that has lost it
  saving.STEP   being written; deleted.STEP: being deleted
  damaged.STEP  set aside: not as it was saved
  after.STEP/   set aside: the checkpoints of later steps, when the run went on from that one on purpose

All other names are foreign and left alone.
"""

import contextlib
import errno
import os
import re
import time
from collections.abc import Iterator

from absl import logging
from etils import epath

from omniimage.buckets import is_remote
from omniimage.errors import require
from omniimage.files import flush
from omniimage.manifests import COMPLETE
from omniimage.paths import is_utf8

SAVING, DELETED, DAMAGED, AFTER, MOVING = "saving.", "deleted.", "damaged.", "after.", "moving."
UNFINISHED = re.compile(r"(saving\.|deleted\.(damaged\.)?)?\d+(\.orbax-checkpoint-tmp.*)?")


class StepFolders:
  def __init__(self, directory: str | os.PathLike):
    self.directory = epath.Path(os.path.abspath(os.path.expanduser(directory)))

  def __truediv__(self, step: int) -> epath.Path:
    return self.directory / str(step)

  def complete(self) -> list[int]:
    """Steps with a marker, ascending."""
    return [step for step in self._steps() if self.is_complete(step)]

  def all(self) -> list[int]:
    """Those and those that have lost their marker: a folder appears under its name only with it."""
    return self._steps()

  def is_complete(self, step: int) -> bool:
    return (self / step / COMPLETE).exists()

  def damaged(self) -> list[str]:
    """Names of what has been set aside as damaged."""
    return sorted(name for name in self._names() if re.fullmatch(r"damaged\.\d+", name))

  def create(self):
    """Makes the directory. OSError where nothing can be written there."""
    self.directory.mkdir(parents=True, exist_ok=True)
    require(os.access(self.directory, os.W_OK), "it is not writable")

  def unfinished(self, step: int) -> epath.Path:
    """Where a checkpoint is written."""
    return self.directory / f"{SAVING}{step}"

  def begin(self, step: int):
    """Before a checkpoint is written: what an earlier try has left of it is removed."""
    remove(self.unfinished(step))

  def finish(self, step: int):
    """Gives what was written its name; a folder of that name without its marker gives way."""
    if (self / step).exists() and not self.is_complete(step):
      logging.warning("%s has no %s and is set aside", self / step, COMPLETE)
      self.set_aside(step)
    self.unfinished(step).rename(self / step)
    flush(self.directory)

  def clear(self):
    """Removes what a save or a deletion that was cut short has left."""
    for path in list(self.directory.iterdir()):
      if UNFINISHED.fullmatch(path.name) and path.is_dir() and not is_step(path.name):
        with _held_files_left():
          remove(path)

  def set_aside(self, *steps: int):
    """As damaged. What was set aside of these steps before gives way."""
    for step in steps:
      aside = self.directory / f"{DAMAGED}{step}"
      if aside.exists():
        self.delete(aside)
      self._move(self / step, aside)

  def left_after(self, step: int) -> epath.Path | None:
    """Where the checkpoints of later steps are, if `leave_after` has been done."""
    place = self.directory / f"{AFTER}{step}"
    return place if place.exists() else None

  def leave_after(self, step: int):
    """Moves those of all later steps into `after.STEP`, which is there only once all are moved."""
    moving = self.directory / f"{MOVING}{AFTER}{step}"
    moving.mkdir(exist_ok=True)
    for later in [found for found in self._steps() if found > step]:
      self._move(self / later, moving / str(later))
    moving.rename(self.directory / f"{AFTER}{step}")

  def delete(self, path: epath.Path):
    """So that no half of a checkpoint is left of a deletion cut short."""
    doomed = self.directory / f"{DELETED}{path.name}"
    if doomed.exists():
      doomed.rmtree()
    path = path.rename(doomed)
    with _held_files_left():
      path.rmtree()

  def _move(self, place: epath.Path, to: epath.Path):
    place.rename(to)

  def _names(self) -> list[str]:
    return [path.name for path in self.directory.iterdir()] if self.directory.exists() else []

  def _steps(self) -> list[int]:
    return sorted(int(name) for name in self._names() if is_step(name) and (self.directory / name).is_dir())


@contextlib.contextmanager
def _held_files_left() -> Iterator[None]:
  """NFS keeps a file that somebody reads, as `.nfs…`, in a folder that is deleted: it is left for the next time."""
  try:
    yield
  except OSError as error:
    if error.errno not in (errno.ENOTEMPTY, errno.EBUSY):
      raise
    logging.warning("%s cannot be deleted yet: %s", error.filename, error.strerror)


def is_step(name: str) -> bool:
  return re.fullmatch("0|[1-9][0-9]*", name) is not None


def check_path(directory: str | os.PathLike, write: bool):
  """UserError where Orbax or TensorStore would take a folder's name for something else: Orbax finds what it has written
  by a glob pattern that begins with the path, TensorStore takes a backslash for the end of a folder's name."""
  path = str(directory)
  if is_remote(path):  # whose names are checked where they are typed
    return
  path = os.path.abspath(path)
  wrong = [repr(sign) for sign in ("\\", *("*?[" if write else "")) if sign in path]
  wrong += ["a colon at the end of a name"] if ":/" in f"{path}/" else []
  wrong += ["bytes that are not UTF-8"] if not is_utf8(path) else []
  doing = "written to" if write else "read from"
  require(
    not wrong, f"{path!r}: no checkpoint can be {doing} a folder whose path holds {' or '.join(wrong)}; rename it"
  )


def remove(path: epath.Path, seconds: float = 5.0):
  """Deletes a folder that threads of a save that failed may still be writing to."""
  stop = time.monotonic() + seconds
  while path.exists():
    try:
      path.rmtree()
    except OSError:
      if time.monotonic() > stop:
        raise
    time.sleep(0.05)
