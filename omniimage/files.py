"""Files that a kill or a power cut leaves whole, as they were or as they become."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from etils import epath

from omniimage.buckets import is_remote


def write_whole(path: Path | epath.Path, content: bytes):
  """All of a file or nothing, and for good. What is no file, as /dev/null, is written to and stays what it is."""
  if is_remote(path) or (path.exists() and not path.is_file()):
    path.write_bytes(content)
    return
  unfinished = path.with_name(f"{path.name}.tmp")
  unfinished.write_bytes(content)
  finish(unfinished, path)


@contextlib.contextmanager
def writing_whole(path: Path) -> Iterator[BinaryIO]:
  """The same for what is written piece by piece: the file is there once the context has ended well."""
  unfinished = path.with_name(f"{path.name}.tmp")
  try:
    with unfinished.open("wb") as file:
      yield file
    finish(unfinished, path)
  except BaseException:
    unfinished.unlink(missing_ok=True)
    raise


def finish(unfinished: Path | epath.Path, path: Path | epath.Path):
  """Gives a file that has been written to its end its name, for good."""
  flush(unfinished)
  unfinished.rename(path)
  flush(path.parent)


def flush(*paths: Path | epath.Path):
  """Has what was written to files or folders survive a power cut. Object stores do so by themselves."""
  for path in paths:
    if not is_remote(path):
      descriptor = os.open(path, os.O_RDONLY)
      try:
        os.fsync(descriptor)
      finally:
        os.close(descriptor)
