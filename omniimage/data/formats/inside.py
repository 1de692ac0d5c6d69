"""Files that a record names. None of them may lie outside its data set, wherever the record came from."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from omniimage.data.records import BadRecord

MAX_BYTES = 2**28  # of one encoded picture; a longer file is none

MAX_NAME = 4096  # characters, as systems have it


def read(root: str, name: str, base: str = "", *, may_be_empty: bool = False) -> bytes:
  """The file that a record names, relative to `base`, a folder of `root`. BadRecord says why it cannot be had."""
  path = find(root, name, base)
  try:
    size = path.stat().st_size
    if not path.is_file():
      raise BadRecord(f"{shown(name)} is no file")
    if size > MAX_BYTES:
      raise BadRecord(f"{shown(name)} has {size} bytes; it may have {MAX_BYTES} at most")
    content = path.read_bytes()
  except OSError as error:
    raise BadRecord(f"{shown(name)} cannot be read: {error.strerror or error}") from None
  if not content and not may_be_empty:
    raise BadRecord(f"{shown(name)} is empty: it has 0 bytes")
  return content


def beside(root: str, folder: str) -> Callable[[str], bytes]:
  """A name → what is read of the file, which lies in a folder of `root`, or else is named from `root` on."""

  def content(name: str) -> bytes:
    return read(root, name, folder if os.path.lexists(Path(root, folder, name)) else "")

  return content


def find(root: str, name: str, base: str = "") -> Path:
  """The path that a record names. BadRecord where it lies outside `root` or is not there."""
  reject_outside(name)
  for written in (name, name.replace("\\", "/")):  # a list that was made on Windows
    path = Path(root, base, written)
    try:
      if os.path.lexists(path):
        if not path.resolve().is_relative_to(Path(root).resolve()):
          raise BadRecord(f"{shown(name)} is a link that leads outside the data set; put the file itself there")
        return path
    except (OSError, RuntimeError) as error:  # a name that is too long; links in a circle
      raise BadRecord(f"{shown(name)} cannot be read: {getattr(error, 'strerror', None) or error}") from None
  raise BadRecord(f"there is no file {shown(name)}")


def reject_outside(name: str):
  """BadRecord unless this may name a file of a data set: relative, and nowhere upwards."""
  if not name.strip() or "\0" in name or len(name) > MAX_NAME:
    raise BadRecord(f"{name[:100]!r} names no file")
  if re.match(r"[A-Za-z][\w+.-]+://", name):
    raise BadRecord(f"{shown(name)} is an address; download the pictures first, with img2dataset for example")
  parts = re.split(r"[/\\]", name)
  if not parts[0] or re.match(r"[A-Za-z]:[/\\]", name) or ".." in parts:
    raise BadRecord(f"{shown(name)} leads outside the data set; names are relative to it")


def shown(name: str) -> str:
  """A file name on one line of UTF-8, whatever bytes it has."""
  text = name.encode("utf-8", "backslashreplace").decode()
  return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
