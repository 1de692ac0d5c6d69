"""What a person typed as a path. Every command, flag and folder of a run goes through `absolute`."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from omniimage import buckets
from omniimage.errors import UserError

if TYPE_CHECKING:
  from etils import epath


def absolute(typed: str | os.PathLike) -> Path:
  """The path from the root, `~` expanded. UserError where it cannot be one, as gs://bucket/run."""
  text = os.fspath(typed)
  if scheme := re.match(r"([A-Za-z][\w+.-]*):/{2}", text):
    raise UserError(f"{text!r} is no path: {scheme[1]}:// cannot be read or written here; mount it, give its folder")
  if not text or "\0" in text or not is_utf8(text):
    raise UserError(f"{text!r} is no path; give the name of a file or folder")
  try:
    path = Path(text).expanduser().absolute()
    # What is above a link's folder is not what its name says, and libraries disagree about it.
    return path.resolve() if ".." in path.parts else path
  except (OSError, RuntimeError) as error:  # the current folder was deleted; no such user; links in a circle
    raise UserError(
      f"{text!r} leads nowhere: {getattr(error, 'strerror', None) or error}; give a path from /"
    ) from None


def anywhere(typed: str | os.PathLike) -> "Path | epath.Path":
  """The same where a bucket will do: gs://BUCKET/FOLDER is epath's, which can do what is asked of paths here."""
  text = os.fspath(typed)
  return buckets.remote(text) if text.startswith(buckets.SCHEME) else absolute(text)


def trouble(error: BaseException) -> str:
  """What a disk or a bucket had against being read or written, in words; empty if the error is none of theirs."""
  return buckets.trouble(error) or (str(error.strerror or error) if isinstance(error, OSError) else "")


@contextlib.contextmanager
def writing(path: "Path | epath.Path") -> Iterator[None]:
  """Around what writes there at a command's end: a disk that is full or a folder that has vanished is one line."""
  try:
    yield
  except Exception as error:
    why = trouble(error)
    if not why:
      raise
    raise UserError(f"{path} cannot be written: {why}; mend that, or choose another path") from None


def is_utf8(text: str) -> bool:
  """Bytes of a command line that are no UTF-8 become lone surrogates, which neither JSON nor TensorStore can hold."""
  try:
    return bool(text.encode())
  except UnicodeEncodeError:
    return False
