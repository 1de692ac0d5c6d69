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
from etils import epath

from omniimage.errors import CheckpointError
from omniimage.files import flush, write_whole
from omniimage.settings import require

ABOUT, COMPLETE, MANIFEST = "about.json", "complete.json", "manifest."
PATIENCE = 1200.0  # seconds that processes wait for each other's files
THREADS = min(8, os.cpu_count() or 1)  # that hash or copy, which does not hold the interpreter's lock
Manifest = dict[str, list]  # {path below the checkpoint: [bytes, SHA-256]}


def seal(place: epath.Path, about: bytes):
  """Hashes this process's share of the files, and has process 0 write the marker once all have done so."""
  index, count = jax.process_index(), jax.process_count()
  wait_for(place.exists, f"{place} by process 0")
  # But for the manifests that other processes are writing meanwhile.
  own = [n for n in _files(place) if not n.startswith(MANIFEST) and _hashed_by(n, count) == index]
  with ThreadPoolExecutor(2 * THREADS) as pool:
    flushed = pool.map(lambda name: flush(place / name), own)
    entries = dict(zip(own, pool.map(lambda name: entry_of(place / name), own)))
    list(flushed)  # raises what went wrong
  write_whole(place / _manifest_name(index, count), to_json(entries))
  if index > 0:
    return
  write_whole(place / ABOUT, about)
  manifests = [_manifest_name(process, count) for process in range(count)]
  for name in manifests:
    wait_for((place / name).exists, f"{place / name}")
  hashed = {name for manifest in manifests for name in json.loads((place / manifest).read_bytes())}
  missed = set(_files(place)) - hashed - {ABOUT, *manifests}
  require(not missed, f"no process has hashed {some(missed)}")
  flush(*(place / folder for folder in {os.path.dirname(name) for name in hashed}))
  write_whole(place / COMPLETE, sealed({name: entry_of(place / name) for name in (ABOUT, *manifests)}))


def all_wrong(place: epath.Path) -> list[str]:
  """What is wrong with the small files, or else with this process's share of the large ones."""
  index, count = jax.process_index(), jax.process_count()
  found, small = set(_files(place)), unsealed(place)
  faults = [wrong(place, name, entry) if name in found else f"{name} is missing" for name, entry in small.items()]
  if any(faults):
    return list(filter(None, faults))
  saved = {}
  for manifest in small.keys() - {ABOUT}:
    saved |= json.loads((place / manifest).read_bytes())
  faults = [f"{name} was not there when it was saved" for name in found - saved.keys() - small.keys() - {COMPLETE}]
  faults += [f"{name} is missing" for name in saved.keys() - found]
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
    size = path.stat().length
    if size < saved:
      return f"{name} is truncated: {size} of {saved} bytes"
    return "" if size == saved and entry_of(path) == entry else f"{name} differs from what was saved"
  except OSError as error:
    return f"{name} cannot be read: {first_line(error)}"


def _files(place: epath.Path, folder: str = "") -> list[str]:
  """Paths of all files below a checkpoint. Links are named, not followed."""
  names = []
  for path in place.iterdir():
    name = folder + path.name
    names += _files(path, f"{name}/") if path.is_dir() and not os.path.islink(path) else [name]
  return names


def _hashed_by(name: str, count: int) -> int:
  """The process whose share a file is: the one that wrote it, which sees it first on a shared disk."""
  written_by = re.search(r"process_(\d+)", name)
  return int(written_by[1]) % count if written_by else 0


def _manifest_name(process: int, count: int) -> str:
  return f"{MANIFEST}{process}-of-{count}.json"


def entry_of(path: epath.Path) -> list:
  with path.open("rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return [file.tell(), digest]


def sealed(entries: Manifest) -> bytes:
  return to_json({"files": entries, "sha256": hashlib.sha256(to_json(entries)).hexdigest()})


def unsealed(place: epath.Path) -> Manifest:
  """What complete.json says of the other small files. Whatever does not seal to the very same bytes is damaged."""
  text = (place / COMPLETE).read_bytes()
  try:
    entries = json.loads(text)["files"]
    require(sealed(entries) == text and ABOUT in entries, "")
  except (ValueError, TypeError, KeyError):
    raise CheckpointError(f"{COMPLETE} differs from what was saved") from None
  return entries


def to_json(content: Any) -> bytes:
  return json.dumps(content, separators=(",", ":")).encode()


def wait_for(happened: Callable[[], bool], what: str, seconds: float = PATIENCE):
  """Looks on the shared disk, where other processes write, until it has happened."""
  stop = time.monotonic() + seconds
  while not happened():
    require(time.monotonic() < stop, f"waited {seconds:.0f} s in vain for {what}")
    time.sleep(0.02)


def first_line(error: Exception) -> str:
  """Of a long one its beginning and its end, where the reason is."""
  line = (str(error).strip().splitlines() or [type(error).__name__])[0]
  return line if len(line) <= 300 else f"{line[:180]} … {line[-120:]}"


def some(names: Iterable[str], most: int = 3) -> str:
  names = sorted(names)
  return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
