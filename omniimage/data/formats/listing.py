"""The files of a source, in an order that is the same everywhere, and what their names say."""

import glob
import hashlib
import itertools
import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from omniimage.data.formats.inside import shown
from omniimage.errors import UserError

# Whether these can be decoded, `omniimage.data.images` finds out; one that cannot is a dropped row, not a silent one.
PICTURES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})
PICTURES |= {".heic", ".heif", ".ppm", ".pgm", ".jp2", ".jxl", ".svg"}
_SPLITS = {
  **dict.fromkeys(("train", "training"), "train"),
  **dict.fromkeys(("test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation"), "test"),
}
_NOT_OF_THE_OWNER = ("__macosx", "thumbs.db", "desktop.ini")


def suffix(name: str) -> str:
  """ ".jpg" of "a/B.JPG", ".tar.gz" of "c.tar.gz"."""
  name = name.lower()
  return ".tar.gz" if name.endswith((".tar.gz", ".tgz")) else os.path.splitext(name)[1]


def is_picture(name: str) -> bool:
  return suffix(name) in PICTURES


def is_hidden(name: str) -> bool:
  """What file managers leave behind, as ".DS_Store" or "__MACOSX/…", in any part of a relative path."""
  parts = [part for part in name.split("/") if part not in ("", ".", "..")]
  return any(part.startswith(".") or part.lower() in _NOT_OF_THE_OWNER for part in parts)


def walk(root: str | Path, below: str = "") -> Iterator[str]:
  """Relative paths of all files in a folder that are not hidden, sorted by the bytes of their names, folder by folder.
  A link to a folder is given like a file, so that nobody is led out of the data set or round in circles."""
  try:
    entries = sorted(os.scandir(Path(root, below)), key=lambda entry: os.fsencode(entry.name))
  except OSError as error:
    raise UserError(f"{Path(root, below)} cannot be listed: {error.strerror}; mend that, or move it away") from None
  for entry in entries:
    if is_hidden(entry.name):
      continue
    path = f"{below}/{entry.name}" if below else entry.name
    if entry.is_dir(follow_symlinks=False):
      yield from walk(root, path)
    else:
      yield path


def files(source: str, suffixes: Collection[str]) -> tuple[str, list[str]]:
  """(the folder that they lie in, their paths relative to it) of a folder, a file, a glob (*, ?) or a range of shards
  ({000..012}, {a,b}), in order. UserError where there are none."""
  if os.path.isdir(source):
    found = [name for name in walk(source) if suffix(name) in suffixes]
    if not found:
      raise UserError(f"{source} has no {' or '.join(sorted(suffixes))} file; give the folder that has them")
    return source, found
  if os.path.exists(source):
    return str(Path(source).parent), [Path(source).name]
  paths = expand(source)
  absent = [path for path in paths if not os.path.exists(path)]
  if absent or not paths:
    what = (
      f"{len(absent)} of {len(paths)} files are not there, {absent[0]}" if len(paths) > 1 else "there is no such file"
    )
    raise UserError(f"{shown(source)}: {what}; give a folder, a file, a pattern such as 'DIR/*.tar' or {{000..012}}")
  root = os.path.commonpath([str(Path(path).parent) for path in paths])
  return root, [os.path.relpath(path, root) for path in paths]


def expand(pattern: str) -> list[str]:
  """The paths that a pattern names; those of a range whether they exist or not, those of a glob as they are found."""
  paths: list[str] = []
  for path in _braces(pattern):
    paths += sorted(glob.glob(path), key=os.fsencode) if glob.has_magic(path) else [path]
  return list(dict.fromkeys(paths))


def split_of_name(name: str) -> str | None:
  """ "train" or "test" of a path that says so: "val/cat.jpg", "data/train-00000-of-00002.parquet"."""
  words = re.split(r"[^a-z]+", name.lower())
  return next((_SPLITS[word] for word in words if word in _SPLITS), None)


def split_of_value(value: object) -> str | None:
  """Of what a column says. None where it is no split."""
  return _SPLITS.get(str(value).strip().lower())


def splits_of(names: Iterable[str]) -> dict[str, str | None]:
  """The split of each name. Where only one of the two occurs, none: something has to be held out."""
  splits = {name: split_of_name(name) for name in names}
  return splits if {"train", "test"} <= set(splits.values()) else dict.fromkeys(splits)


def fingerprint(root: str, names: Iterable[str]) -> str:
  """Of names, sizes and times of change."""
  digest = hashlib.sha256()
  for name in names:
    try:
      status = os.stat(Path(root, name))
      digest.update(os.fsencode(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0"))
    except OSError:
      digest.update(os.fsencode(f"{name}\0absent\0"))
  return digest.hexdigest()


def batched(items: Iterable, size: int) -> Iterator[tuple]:
  """As `itertools.batched` of Python 3.12."""
  items = iter(items)
  while batch := tuple(itertools.islice(items, size)):
    yield batch


def _braces(pattern: str) -> list[str]:
  """Of {000..012} and {a,b}, what a shell makes of them."""
  match = re.search(r"\{([^{}]*)\}", pattern)
  if not match:
    return [pattern]
  inner, before, after = match[1], pattern[: match.start()], pattern[match.end() :]
  if span := re.fullmatch(r"(\d+)\.\.(\d+)", inner):
    first, last = int(span[1]), int(span[2])
    words = [str(number).zfill(len(span[1])) for number in range(first, last + 1)]
  elif "," in inner:
    words = inner.split(",")
  else:
    return [before + "{" + inner + "}" + rest for rest in _braces(after)]
  return [before + word + rest for word in words for rest in _braces(after)]
