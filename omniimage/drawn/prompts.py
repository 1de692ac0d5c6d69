"""A file of prompts: one a line, as JSON in a file that is called so, else as plain text.

  {"prompt": "a large red star", "seed": 3, "name": "star"}

Seed and name may be left out. Blank lines are passed over, but counted.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from omniimage.data.text import TextTokenizer, as_text
from omniimage.errors import UserError
from omniimage.ranges import SEEDS
from omniimage.sampling.prompts import read_prompt
from omniimage.settings import Settings

JSON = (".jsonl", ".ndjson", ".json")
KEYS = ("prompt", "seed", "name")
LONGEST_NAME = 200  # bytes, of the 255 that file systems take
PICTURE = ".png"


@dataclass(frozen=True)
class Wanted:
  """A picture: its name without what all end in, what it shows, and the line that asks for it."""

  name: str
  prompt: str
  seed: int
  line: int


def read_prompts(path: Path, seed: int) -> list[Wanted]:
  """What the lines of a file ask for; `seed` is of those that say none. UserError names the first bad line."""
  try:
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
  except OSError as error:
    raise UserError(f"--prompts={path} cannot be read: {error.strerror}; give a file with a prompt a line") from None
  is_json, wanted, lines_of = path.suffix.lower() in JSON, [], {}
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    try:
      one = _wanted(line.decode(), is_json, seed, number)
      if (before := lines_of.setdefault(one.name.casefold(), number)) != number:
        raise ValueError(f"the name {one.name!r} is that of line {before}; each picture needs its own")
    except ValueError as error:  # UnicodeDecodeError is one
      raise _bad(path, number, error) from None
    wanted.append(one)
  if not wanted:
    raise UserError(f"--prompts={path} has no prompts; give a file with a prompt a line")
  return wanted


def check_prompts(path: Path, wanted: Iterable[Wanted], settings: Settings, text_tokenizer: TextTokenizer):
  """UserError, naming the line, where the model cannot read a prompt."""
  for one in wanted:
    try:
      read_prompt(one.prompt, settings, text_tokenizer)
    except UserError as error:
      raise _bad(path, one.line, error) from None


def as_lines(wanted: Iterable[Wanted]) -> bytes:
  """A file of the same pictures, each with its name and its seed."""
  entries = ({"name": one.name, "prompt": one.prompt, "seed": one.seed} for one in wanted)
  return "".join(f"{json.dumps(entry, ensure_ascii=False)}\n" for entry in entries).encode()


def _bad(path: Path, number: int, error: Exception) -> UserError:
  what = "it is no text in UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
  return UserError(f"{path}, line {number}: {what}")


def _wanted(line: str, is_json: bool, seed: int, number: int) -> Wanted:
  """ValueError says what is wrong."""
  entry = _parsed(line) if is_json else {"prompt": line.strip()}
  if not is_json and line.lstrip().startswith('{"'):
    raise ValueError(f"this is JSON, and the file is not called so; name it as in prompts{JSON[0]}")
  prompt, seed, name = entry.get("prompt"), entry.get("seed", seed), entry.get("name", f"{number:06d}")
  if not isinstance(prompt, str) or not prompt.strip():
    raise ValueError("the prompt is missing or empty; say what to draw")
  if as_text(prompt) != prompt:
    raise ValueError("the prompt has characters that are no text in UTF-8")
  if isinstance(seed, bool) or not isinstance(seed, int) or seed not in SEEDS:
    raise ValueError(f"seed={seed!r} must be a whole number {SEEDS}")
  return Wanted(_checked_name(name), prompt, seed, number)


def _parsed(line: str) -> dict:
  try:
    entry = json.loads(line)
  except (ValueError, RecursionError):
    entry = None
  if not isinstance(entry, dict):
    raise ValueError('this is no JSON object; write {"prompt": "a large red star"}')
  if unknown := [key for key in entry if key not in KEYS]:
    raise ValueError(f"{unknown[0]!r} is not of a prompt; there are {', '.join(KEYS)}")
  return entry


def _checked_name(name: object) -> str:
  named = name.removesuffix(PICTURE) if isinstance(name, str) else ""
  odd = not named.isprintable() or named.startswith(".") or any(letter in named for letter in "/\\")
  if not named.strip() or odd or len(named.encode()) > LONGEST_NAME:
    raise ValueError(f"name={name!r} is no name of a file; give letters and digits, as in star-1")
  return named
