"""The folder that is written to: whether it can be, by whom, and what was begun there."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omniimage.data.prepared import DESCRIPTION, PARTS, Prepared
from omniimage.errors import UserError
from omniimage.files import write_whole
from omniimage.lock import Lock
from omniimage.paths import writing
from omniimage.prepare.parts import has_any

BEGUN = "begun.json"  # in PARTS: the request, and the source's fingerprint


def check(out: Path, source: Path, request: Mapping[str, Any]):
  """UserError where the folder cannot become what is asked for. Writes nothing."""
  if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
    raise UserError(f"--out={out} lies in the source {source}, and would be read as part of it; give another --out")
  if out.exists() and not out.is_dir():
    raise UserError(f"--out={out} is a file; give a folder that is not there yet")
  if not out.is_dir() or is_complete(out):
    return
  if (begun := _begun(out)) is not None:
    _check_same(out, begun["request"], request, "was begun")
  elif not (out / PARTS).is_dir():
    with writing(out):
      others = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    if others:
      raise UserError(f"--out={out} holds other files, as {others[0]!r}; give a folder that is empty or not there yet")


def is_complete(out: Path) -> bool:
  return (out / DESCRIPTION).exists()


def finished(out: Path, request: Mapping[str, Any]) -> Prepared | None:
  """The data set where it is complete. UserError if it is another one, or is damaged."""
  if not is_complete(out):
    return None
  prepared = Prepared.open(out)
  _check_same(out, prepared.description.get("request", {}), request, "was made")
  prepared.verify()
  return prepared


def complete(out: Path, request: Mapping[str, Any], say: Callable[[str], None]) -> Prepared | None:
  """`finished`, and says so."""
  done = finished(out, request)
  if done is not None:
    clear(out)
    say(f"{out} is complete, and its checksums are right; there is nothing to do")
  return done


@contextlib.contextmanager
def taken(out: Path) -> Iterator[Path]:
  """Makes the folder and the one for the parts, which it gives; no other process may write there meanwhile."""
  parts = out / PARTS
  with writing(parts):
    parts.mkdir(parents=True, exist_ok=True)
  lock = Lock(parts / "lock", "the folder", "--out")
  lock.take_alone()
  try:
    yield parts
  finally:
    lock.close()


def begin(out: Path, request: Mapping[str, Any], fingerprint: str):
  """Notes what is made there. UserError where it is not what was begun."""
  if (begun := _begun(out)) is None:
    with writing(out):
      write_whole(out / PARTS / BEGUN, json.dumps({"request": request, "fingerprint": fingerprint}).encode())
    return
  _check_same(out, begun["request"], request, "was begun")
  if begun["fingerprint"] != fingerprint:
    raise UserError(f"the source has changed since {out} was begun; delete {out} and begin anew, or give another --out")


def clear(out: Path):
  """Takes the parts away, of a data set that is complete."""
  shutil.rmtree(out / PARTS, ignore_errors=True)


def _begun(out: Path) -> dict[str, Any] | None:
  """What is made there; None where nothing is yet that would be worth going on with."""
  if not has_any(out / PARTS):
    return None
  try:
    begun = json.loads((out / PARTS / BEGUN).read_bytes())
    return {"request": dict(begun["request"]), "fingerprint": begun["fingerprint"]}
  except (FileNotFoundError, NotADirectoryError):
    return None
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f"{out / PARTS / BEGUN} cannot be read ({error}); delete {out} and begin anew") from None


def _check_same(out: Path, before: Mapping[str, Any], now: Mapping[str, Any], what: str):
  if differing := [name for name in now if before.get(name) != now[name]]:
    name = differing[0]
    raise UserError(
      f"{out} {what} with --{name}={_shown(before.get(name))}, not {_shown(now[name])}; "
      "give the same, or another --out, or delete that folder"
    )


def _shown(value: Any) -> str:
  return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
