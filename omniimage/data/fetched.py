"""Prepared data sets that lie in a bucket. What reads their shards knows files alone, so they are copied to a folder of
this machine, once: $OMNIIMAGE_CACHE, or ~/.cache/omniimage, and there under a name that their content decides.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from omniimage import buckets
from omniimage.errors import UserError
from omniimage.files import write_whole, writing_whole
from omniimage.paths import absolute, anywhere, writing

if TYPE_CHECKING:
  from etils import epath

DESCRIPTION = "dataset.json"  # as in `omniimage.data.prepared`, which reads what is copied
FILES = 8  # that are copied at a time


def on_this_machine(typed: str) -> Path:
  """The folder that is typed, or the copy of one in a bucket. UserError where it cannot be copied, or is not whole."""
  path = anywhere(typed)
  return _copied(path) if buckets.is_remote(path) else absolute(typed)


def cache_folder() -> Path:
  return absolute(os.environ.get("OMNIIMAGE_CACHE") or "~/.cache/omniimage")


def _copied(path: "epath.Path") -> Path:
  try:
    description = (path / DESCRIPTION).read_bytes()
    files = _files(json.loads(description))
  except Exception as error:
    why = buckets.trouble(error) or (f"{DESCRIPTION} is damaged" if isinstance(error, ValueError | LookupError) else "")
    if not why:
      raise
    raise UserError(
      f"{path} is no prepared data set that can be read: {why}; copy one there that is finished"
    ) from None
  place = cache_folder() / hashlib.sha256(description).hexdigest()[:32]
  with writing(place):
    place.mkdir(parents=True, exist_ok=True)
    with _alone(place / "lock"):
      missing = {name: sha256 for name, sha256 in files.items() if not (place / name).exists()}
      if missing:
        print(f"{path}: copies {len(missing)} files to {place}, once", file=sys.stderr, flush=True)
      with ThreadPoolExecutor(FILES) as pool:
        list(pool.map(lambda name: _copy(path / name, place / name, files[name]), missing))
      write_whole(place / DESCRIPTION, description)  # without it the folder is unfinished
  return place


def _files(description: dict) -> dict[str, str]:
  """SHA-256 of each file of a data set, by its name."""
  found = {}
  for split in description["splits"].values():
    for file in (split["index"], *split["shards"]):
      if "/" in file["file"]:
        raise ValueError(file["file"])
      found[file["file"]] = file["sha256"]
  return found


def _copy(source: "epath.Path", target: Path, sha256: str):
  """There once all of it is, and is what it should be."""
  digest = hashlib.sha256()
  with writing_whole(target) as file:
    try:
      for piece in buckets.read_pieces(source):
        digest.update(piece)
        file.write(piece)
    except Exception as error:
      if not (why := buckets.trouble(error)):
        raise
      raise UserError(f"{source} cannot be read: {why}; copy the data set there again") from None
    if digest.hexdigest() != sha256:
      raise UserError(f"{source} is damaged: its checksum differs; copy it there again, or prepare the data set again")


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
  """One process of this machine at a time; the others wait."""
  with path.open("a") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield
