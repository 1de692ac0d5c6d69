"""Manifests: what each file of a checkpoint was when it was saved, and whether it still is. `omniimage.checkpoint` says
which files there are.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
from absl import logging
from etils import epath

from omniimage import buckets
from omniimage.buckets import is_remote
from omniimage.errors import CheckpointError, require
from omniimage.files import flush, write_whole

ABOUT, COMPLETE, MANIFEST = "about.json", "complete.json", "manifest."
PATIENCE = 1200.0  # seconds that processes wait for each other's files
THREADS = min(8, os.cpu_count() or 1)  # that hash or copy, which does not hold the interpreter's lock
# Files that file managers, editors and network disks put into any folder, and change and take away as they like.
FOREIGN = re.compile(r"\..*|.*~|#.*#|.*\.sw[a-p]|.*\.(bak|tmp)|Thumbs\.db|desktop\.ini|__MACOSX|@eaDir", re.IGNORECASE)
Manifest = dict[str, list]  # {path below the checkpoint: [bytes, SHA-256]}


def seal(place: epath.Path, about: bytes, step: int):
  """Hashes this process's share of the files, and has process 0 write the marker once all have done so."""
  index, count = jax.process_index(), jax.process_count()
  wait_for(place.exists, f"{place} by process 0")
  entries = _hashed(place, [name for name in _written(place) if _hashed_by(name, count) == index])
  if index > 0:
    write_whole(place / _manifest_name(index, count), to_json(entries))
    return
  write_whole(place / ABOUT, about)
  manifests = [_manifest_name(process, count) for process in range(count)]
  theirs = set()
  for name in manifests[1:]:
    wait_for((place / name).exists, f"{place / name}")
    theirs |= json.loads((place / name).read_bytes()).keys()
  entries |= _hashed(place, sorted(_written(place) - theirs - entries.keys() - {ABOUT}))  # what has come meanwhile
  write_whole(place / manifests[0], to_json(entries))
  flush(*(place / folder for folder in {os.path.dirname(name) for name in theirs | entries.keys()}))
  write_whole(place / COMPLETE, sealed({name: entry_of(place / name) for name in (ABOUT, *manifests)}, step))


def _written(place: epath.Path) -> set[str]:
  """What Orbax has written, but for the manifests that processes are writing meanwhile."""
  return {name for name in _files(place) if not name.startswith(MANIFEST) and not _is_foreign(name)}


def _hashed(place: epath.Path, names: list[str]) -> Manifest:
  """Entries of files, which are then on the disk."""
  with ThreadPoolExecutor(2 * THREADS) as pool:
    flushed = pool.map(lambda name: flush(place / name), names)
    entries = dict(zip(names, pool.map(lambda name: entry_of(place / name), names)))
    list(flushed)  # raises what went wrong
  return entries


def all_wrong(place: epath.Path, step: int) -> list[str]:
  """What is wrong with the small files, or else with this process's share of the large ones.

  What lies beside the files that were saved is no fault; a line says that it is ignored.
  """
  index, count = jax.process_index(), jax.process_count()
  found, small = set(_files(place)), unsealed(place, step)
  faults = [wrong(place, name, entry) if name in found else f"{name} is missing" for name, entry in small.items()]
  if any(faults):
    return list(filter(None, faults))
  saved = {}
  for manifest in small.keys() - {ABOUT}:
    saved |= json.loads((place / manifest).read_bytes())
  saved = {name: entry for name, entry in saved.items() if not _is_foreign(name)}  # older versions hashed such files
  foreign = found - saved.keys() - small.keys() - {COMPLETE}
  if foreign and index == 0:
    logging.warning("%s: ignores %s, which the run has not written", place, some(foreign))
  faults = [f"{name} is missing" for name in saved.keys() - found]
  # A name in a manifest that leads out of the checkpoint is not among those found there, and never opened.
  own = [name for name in saved.keys() & found if _hashed_by(name, count) == index]
  with ThreadPoolExecutor(THREADS) as pool:
    faults += pool.map(lambda name: wrong(place, name, saved[name]), own)
  return list(filter(None, faults))


def wrong(place: epath.Path, name: str, entry: list) -> str:
  """What distinguishes a file from its entry in a manifest, in words; empty if nothing does."""
  path, saved = place / name, entry[0]
  if os.path.islink(path):
    return f"{name} is a symbolic link"
  try:
    found = entry_of(path) if is_remote(path) else None
    size = found[0] if found else path.stat().length
    if size < saved:
      return f"{name} is truncated: {size} of {saved} bytes"
    return "" if size == saved and (found or entry_of(path)) == entry else f"{name} differs from what was saved"
  except OSError as error:
    return f"{name} cannot be read: {first_line(error)}"


def _files(place: epath.Path, folder: str = "") -> list[str]:
  """Paths of all files below a checkpoint. Links and foreign folders are named, not followed."""
  if is_remote(place):
    return list(buckets.sizes(place))
  names = []
  for path in place.iterdir():
    name = folder + path.name
    inside = path.is_dir() and not os.path.islink(path) and not _is_foreign(path.name)
    names += _files(path, f"{name}/") if inside else [name]
  return names


def _is_foreign(name: str) -> bool:
  return FOREIGN.fullmatch(name.rsplit("/", 1)[-1]) is not None


def _hashed_by(name: str, count: int) -> int:
  """The process whose share a file is: the one that wrote it, which sees it first on a shared disk."""
  written_by = re.search(r"process_(\d+)", name)
  return int(written_by[1]) % count if written_by else 0


def _manifest_name(process: int, count: int) -> str:
  return f"{MANIFEST}{process}-of-{count}.json"


def entry_of(path: epath.Path) -> list:
  """Bytes and SHA-256."""
  if is_remote(path):
    size, digest = 0, hashlib.sha256()
    for piece in buckets.read_pieces(path):
      digest.update(piece)
      size += len(piece)
    return [size, digest.hexdigest()]
  with path.open("rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return [file.tell(), digest]


def sealed(entries: Manifest, step: int | None) -> bytes:
  """The content of complete.json. Older versions sealed no step."""
  if step is None:
    return to_json({"files": entries, "sha256": hashlib.sha256(to_json(entries)).hexdigest()})
  content = {"step": step, "files": entries}
  return to_json({**content, "sha256": hashlib.sha256(to_json(content)).hexdigest()})


def unsealed(place: epath.Path, step: int) -> Manifest:
  """What complete.json says of the other small files. Whatever does not seal to the very same bytes is damaged; a
  checkpoint of another step, that was copied here, does not pass for this one."""
  try:
    text = (place / COMPLETE).read_bytes()
  except FileNotFoundError:
    raise CheckpointError(f"{COMPLETE} is missing") from None
  try:
    content = json.loads(text)
    entries, own = content["files"], content.get("step")
    require(sealed(entries, own) == text and ABOUT in entries, "")
  except (ValueError, TypeError, KeyError, AttributeError):
    raise CheckpointError(f"{COMPLETE} differs from what was saved") from None
  require(own in (None, step), f"it is the checkpoint of step {own}, copied over this name")
  return entries


def to_json(content: Any) -> bytes:
  return json.dumps(content, separators=(",", ":")).encode()


def wait_for(happened: Callable[[], bool], what: str, seconds: float = PATIENCE):
  """Looks on the shared disk or bucket, where other processes write, until it has happened."""
  stop = time.monotonic() + seconds
  while not happened():
    require(time.monotonic() < stop, f"waited {seconds:.0f} s in vain for {what}")
    time.sleep(0.5 if is_remote(what) else 0.02)  # a bucket counts requests, of every host


def first_line(error: Exception) -> str:
  """Of a long one its beginning and its end, where the reason is."""
  line = (str(error).strip().splitlines() or [type(error).__name__])[0]
  return line if len(line) <= 300 else f"{line[:180]} … {line[-120:]}"


def some(names: Iterable[str], most: int = 3) -> str:
  names = sorted(names)
  return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
