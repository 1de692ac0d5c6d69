"""Checkpoints in a bucket, where nothing can be renamed and a folder is but the beginning of its objects' names.

  STEP/              a checkpoint; without its marker, one that has lost it, or one of which an object says otherwise
  saving.STEP        an object: the checkpoint is being written
  deleted.NAME       an object: the folder is being deleted
  damaged.STEP/      as on disk
  after.STEP/        as on disk, once there is an object `moved` in it

What is to be done is written down first, so that whoever comes after a kill finds it and does it to its end. A folder
is moved by copying all of it, which the service does by itself, and then deleting it.
"""

import os
import re

from etils import epath

from omniimage import buckets
from omniimage.manifests import COMPLETE
from omniimage.step_folders import AFTER, DELETED, SAVING, StepFolders, is_step

MOVED = "moved"
UNDER_WAY = re.compile(rf"({SAVING}|{DELETED}(damaged\.)?)\d+")


class BucketFolders(StepFolders):
  """On several processes the first alone writes; all may read."""

  def __init__(self, directory: str | os.PathLike):
    self.directory = epath.Path(directory)

  def create(self):
    """There are no folders; that one may write there has been tried when the workdir was made."""

  def is_complete(self, step: int) -> bool:
    return COMPLETE in buckets.listed(self / step)

  def all(self) -> list[int]:
    under_way = set(filter(UNDER_WAY.fullmatch, self._names()))
    return [
      step
      for step in self._steps()
      if under_way.isdisjoint((f"{SAVING}{step}", f"{DELETED}{step}")) or self.is_complete(step)
    ]

  def unfinished(self, step: int) -> epath.Path:
    """Under its name; its last object decides."""
    return self / step

  def begin(self, step: int):
    if step in self._steps() and step in self.all():  # one that has lost its marker
      self.set_aside(step)
    (self.directory / f"{SAVING}{step}").write_bytes(b"")
    buckets.remove(self / step)

  def finish(self, step: int):
    (self.directory / f"{SAVING}{step}").unlink(missing_ok=True)

  def clear(self):
    for name in filter(UNDER_WAY.fullmatch, self._names()):
      what = name.removeprefix(DELETED) if name.startswith(DELETED) else name.removeprefix(SAVING)
      if name.startswith(DELETED) or not self.is_complete(int(what)):
        buckets.remove(self.directory / what)
      (self.directory / name).unlink(missing_ok=True)

  def left_after(self, step: int) -> epath.Path | None:
    place = self.directory / f"{AFTER}{step}"
    return place if (place / MOVED).exists() else None

  def leave_after(self, step: int):
    place = self.directory / f"{AFTER}{step}"
    for later in [found for found in self._steps() if found > step]:
      self._move(self / later, place / str(later))
    (place / MOVED).write_bytes(b"")

  def delete(self, path: epath.Path):
    note = self.directory / f"{DELETED}{path.name}"
    note.write_bytes(b"")
    (path / COMPLETE).unlink(missing_ok=True)
    buckets.remove(path)
    note.unlink(missing_ok=True)

  def _names(self) -> list[str]:
    return list(buckets.listed(self.directory))

  def _steps(self) -> list[int]:
    return sorted(
      int(name) for name, is_folder in buckets.listed(self.directory).items() if is_folder and is_step(name)
    )

  def _move(self, place: epath.Path, to: epath.Path):
    buckets.copy(place, to)
    self.delete(place)
