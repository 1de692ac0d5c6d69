"""Paths in a bucket of Cloud Storage, gs://BUCKET/FOLDER: epath's, over gcsfs. Only this file knows gcsfs.

An object is there whole or not at all, and so is what takes its place. There is no renaming, no adding to an object's
end, no folder and no lock: what stands in for them is in `omniimage/bucket_folders.py`, `omniimage/growing.py` and
`omniimage/bucket_lock.py`.

STORAGE_EMULATOR_HOST=http://HOST:PORT is honoured by all that reads and writes there: gcsfs, Orbax and TensorStore.
"""

import contextlib
import importlib
import importlib.util
import logging
import os
import re
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING

from omniimage.errors import UserError

if TYPE_CHECKING:
  from etils import epath

SCHEME = "gs://"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
SILENCE = 60.0  # seconds without an answer, or a part of it
LIBRARIES = ("gcsfs", "fsspec", "aiohttp", "google.auth", "google.api_core")


def is_remote(path: str | os.PathLike) -> bool:
  return "://" in str(path)


def remote(typed: str) -> "epath.Path":
  """The path that gs://BUCKET/FOLDER names. UserError where it names none, or gcsfs is missing."""
  bucket, *inside = typed.removeprefix(SCHEME).split("/")
  inside = [part for part in inside if part]
  if not NAME.fullmatch(bucket):
    raise UserError(f"{typed!r} names no bucket; give gs://BUCKET/FOLDER")
  if not inside or {".", ".."} & set(inside) or re.search(r"[*?\[\]#\0\n\r\ud800-\udfff]", typed):
    raise UserError(f"{typed!r} is no folder in a bucket; give gs://BUCKET/FOLDER, without any of . .. * ? [ ] #")
  if importlib.util.find_spec("gcsfs") is None:
    raise UserError(f"{typed}: what reads and writes buckets is not installed; pip install 'omniimage[gcs]'")
  _set_up()
  from etils import epath  # which local paths do without

  return epath.Path("/".join([f"{SCHEME}{bucket}", *inside]))


def _set_up():
  """How the libraries are to behave, before any of them looks."""
  os.environ.setdefault("EPATH_USE_TF", "false")  # one way, whether TensorFlow is installed or not
  # It would ask another service of what kind each bucket is. All we do is the same in every kind.
  os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
  # A connection that has died in silence is given up, and what was asked is asked again; by itself after five minutes.
  patience = importlib.import_module("aiohttp").ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
  options = {"use_listings_cache": False, "requests_timeout": patience}  # no cache: another process writes there too
  if emulator := os.environ.get("STORAGE_EMULATOR_HOST"):
    os.environ.setdefault("TENSORSTORE_GCS_HTTP_URL", emulator if "://" in emulator else f"http://{emulator}")
    os.environ.setdefault("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")  # else TensorStore looks for one for seconds
    options["token"] = "anon"
  config = importlib.import_module("fsspec.config")
  config.conf["gcs"] = {**config.conf.get("gcs", {}), **options}
  logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # what it gives up it raises too, and that becomes one line


def kvstore(folder: "epath.Path") -> dict[str, str]:
  """What TensorStore calls it."""
  bucket, _, inside = _name(folder).partition("/")
  return {"driver": "gcs", "bucket": bucket, "path": f"{inside}/"}


def trouble(error: BaseException) -> str:
  """What the storage had against it, in words; empty if the error is none of its."""
  if not any(_of_libraries(frame) for frame, _ in traceback.walk_tb(error.__traceback__)):
    return ""
  if isinstance(error, FileNotFoundError):
    return "there is no such bucket or object"
  if isinstance(error, FileExistsError):
    return "it is there already"
  return " ".join(str(error).split())[:300] or type(error).__name__


def listed(folder: "epath.Path") -> dict[str, bool]:
  """The names in a folder, and which are folders themselves; {} where there is none."""
  with contextlib.suppress(FileNotFoundError):
    entries = _system().ls(_name(folder), detail=True)
    return {entry["name"].rstrip("/").rsplit("/", 1)[-1]: entry["type"] == "directory" for entry in entries}
  return {}


def sizes(folder: "epath.Path") -> dict[str, int]:
  """Bytes of all objects of a folder, by their paths below it."""
  found = _system().find(_name(folder), detail=True)
  return {name.removeprefix(f"{_name(folder)}/"): entry["size"] for name, entry in found.items()}


def read_pieces(path: "epath.Path", piece: int = 2**26) -> Iterator[bytes]:
  """The content of an object, with one request a piece."""
  start, content = 0, None
  while content is None or len(content) == piece:
    try:
      content = _system().cat_file(_name(path), start=start, end=start + piece)
    except Exception as error:
      if getattr(error, "code", None) != 416:  # nothing is there from `start` on
        raise
      return
    yield content
    start += piece


def copy(source: "epath.Path", target: "epath.Path"):
  """An object, or all those of a folder, to another place of the same bucket, without reading them here."""
  system, top = _system(), _name(source)
  names = system.find(top)
  if names:
    system.copy(names, [f"{_name(target)}{name.removeprefix(top)}" for name in names])


def remove(path: "epath.Path"):
  """An object, or all those of a folder; nothing where there is none."""
  with contextlib.suppress(FileNotFoundError):
    path.rmtree()


def _system():
  return importlib.import_module("fsspec").filesystem("gcs")


def _name(path: "epath.Path") -> str:
  return str(path).removeprefix(SCHEME)


def _of_libraries(frame) -> bool:
  return f"{frame.f_globals.get('__name__')}.".startswith(tuple(f"{name}." for name in LIBRARIES))
