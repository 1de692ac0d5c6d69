"""The folder that pictures are drawn into.

  NAME.png        a picture, written whole
  prompts.jsonl   names, prompts and seeds of all that will be there
  drawing.json    what they are drawn with
  lock            held by the command that draws

A folder is of one file of prompts and one model: whatever else is asked for is refused, and nothing is written anew.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omniimage import strict_json
from omniimage.drawn.prompts import PICTURE, Wanted, as_lines
from omniimage.errors import UserError
from omniimage.files import write_whole
from omniimage.lock import Lock
from omniimage.paths import writing

ELSE = "choose another --out"


class Folder:
  def __init__(self, path: Path):
    self.path = path
    self.lock = Lock(path / "lock", "the folder", "--out")
    self.prompts, self.about = path / "prompts.jsonl", path / "drawing.json"

  def create(self):
    """UserError where it cannot be made."""
    try:
      self.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise UserError(f"--out={self.path} cannot be made: {error.strerror}; {ELSE}") from None

  def begin(self, wanted: Sequence[Wanted], about: Mapping[str, Any]) -> set[str]:
    """The names of the pictures that are there, once the folder says what it is of. UserError where it is of others.

    Args:
      about: what the pictures are drawn with, small JSON.
    """
    if self.about.exists():
      self._check(wanted, about)
      return self.drawn()
    if foreign := sorted(self.drawn() & {one.name for one in wanted}):
      raise UserError(f"{self._picture(foreign[0])} is there already, and not of this command; {ELSE}")
    with writing(self.path):
      write_whole(self.prompts, as_lines(wanted))
      write_whole(self.about, (strict_json.dumps(about, indent=2) + "\n").encode())
    return set()

  def drawn(self) -> set[str]:
    """Names of the pictures that are there."""
    return {path.name.removesuffix(PICTURE) for path in self.path.iterdir() if path.name.endswith(PICTURE)}

  def write(self, name: str, png: bytes):
    with writing(self.path):
      write_whole(self._picture(name), png)

  def _picture(self, name: str) -> Path:
    return self.path / f"{name}{PICTURE}"

  def _check(self, wanted: Sequence[Wanted], about: Mapping[str, Any]):
    try:
      there, lines = strict_json.loads(self.about.read_bytes()), self.prompts.read_bytes()
      differing = [key for key in about if there[key] != json.loads(json.dumps(about[key]))]
    except (OSError, ValueError, TypeError, KeyError):
      raise UserError(f"{self.about} or {self.prompts.name} beside it cannot be read; {ELSE}") from None
    if differing:
      key = differing[0]
      raise UserError(
        f"{self.path} has pictures that were drawn with another {key}: {_short(there[key])} there, "
        f"{_short(about[key])} here; {ELSE}"
      )
    if lines != as_lines(wanted):
      own = as_lines(wanted).splitlines()
      theirs = lines.splitlines()
      place = next((i for i, pair in enumerate(zip(theirs, own)) if pair[0] != pair[1]), min(len(theirs), len(own)))
      asked = f"line {wanted[place].line} is another" if place < len(wanted) else f"it asks for {len(theirs)} pictures"
      raise UserError(f"{self.path} is of other prompts, which {self.prompts} has: {asked}; {ELSE}")


def _short(value: Any) -> str:
  text = json.dumps(value)
  return text if len(text) <= 60 else f"{text[:57]}…"
