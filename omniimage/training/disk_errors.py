"""What stands between a run and its workdir, a disk or a bucket, told in one line."""

import contextlib
import errno
from collections.abc import Iterator

from omniimage.errors import CheckpointError, UserError
from omniimage.workdir import Workdir

DISK_ERRORS = (
  errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENOTCONN
)  # fmt: skip


@contextlib.contextmanager
def disk_errors(workdir: Workdir) -> Iterator[None]:
  """A disk that is full or read-only, a bucket that refuses, and a workdir that has vanished are something a person can
  mend: a UserError of one line; all else stays what it is."""
  try:
    yield
  except CheckpointError:
    workdir.lock.check()
    raise
  except Exception as error:
    why = workdir.trouble(error)
    if not why:
      raise
    workdir.lock.check()
    if workdir.remote:
      raise UserError(
        f"cannot read or write the workdir {workdir.path}: {why}; mend that, and the same command goes on from the "
        "last checkpoint"
      ) from None
    inside = str(error.filename or "").startswith(f"{workdir.path}/")
    if error.errno not in DISK_ERRORS and not inside:
      raise
    raise UserError(
      f"cannot write to the workdir {workdir.path}: {error.strerror}{f' ({error.filename})' if inside else ''}; mend "
      "that, and the same command goes on from the last checkpoint"
    ) from None
