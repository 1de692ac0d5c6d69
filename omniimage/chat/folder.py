"""A session on disk: a folder of conversation.jsonl, a line a conversation, with its pictures beside it and a lock.

A line is one that `launch.prepare --format=conversations` reads, with an entry of its own for who goes on with it:

  {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "001.jpg"}},
                                             {"type": "text", "text": "now at night"}]},
                {"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": "002.png"}}]}],
   "drawn": {"size": [64, 64], "tokenizer": "5f0c…", "codes": {"002.png": [[3, 17, …], …]}}}

`drawn` is of the pictures that the model has drawn: their height and width, and the codes that it goes on from, which
are those of one tokenizer. Each file is written whole, a picture before the line that names it; so whatever ends the
program leaves a session as it was after one part of an answer or another. The last line is the conversation that goes
on.
"""

import contextlib
import io
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from omniimage import strict_json
from omniimage.data.conversation import ImageTurn, TextTurn, Turn
from omniimage.errors import UserError
from omniimage.files import write_whole
from omniimage.lock import Lock
from omniimage.paths import writing
from omniimage.sampling.pictures import read_picture
from omniimage.settings import Settings
from omniimage.vocabulary import ASSISTANT, ROLES, USER

CONVERSATIONS, LOCK = "conversation.jsonl", "lock"
PATH_FLAG = "--session"
NUMBERED = re.compile(r"(\d+)\.\w+")

# Axes: H × W pixels, h × w visual tokens.


@dataclass(frozen=True, eq=False)
class Shown:
  """A picture of a session: a file of its folder and, where the model goes on from those, its codes (h, w) int32."""

  file: str
  codes: np.ndarray | None = None


Part = str | Shown


@dataclass
class Exchange:
  """What the user has said and shown, and what has been answered."""

  asked: list[Part]
  answer: list[Part] = field(default_factory=list)


class SessionFolder:
  """A folder that has been opened, for one process at a time.

  Attributes:
    path: of the folder.
    exchanges: of the conversation that goes on.
  """

  def __init__(self, path: Path):
    """Makes the folder where there is none. UserError where it cannot be, is in use, or holds something else."""
    self.path = path
    with writing(path):
      path.mkdir(parents=True, exist_ok=True)
    self._lock = Lock(path / LOCK, "the session", PATH_FLAG)
    self._lock.take_alone()
    lines = _lines(self._file)
    self._before: list[dict] = lines[:-1]
    self.exchanges, self._drawn = _read(lines[-1], f"{self._file}:{len(lines)}") if lines else ([], {})
    self._tokenizer, self._size = "", (0, 0)

  @property
  def _file(self) -> Path:
    return self.path / CONVERSATIONS

  def turns(self, settings: Settings, tokenizer: str) -> list[Turn]:
    """What was said, as a model of these settings reads it; from here on the session is that model's.

    Arguments and errors as of `belong_to`; UserError, too, where pictures are gone.
    """
    self.belong_to(settings, tokenizer)
    return self.said(settings)

  def belong_to(self, settings: Settings, tokenizer: str):
    """From here on the session is that of a model of these settings.

    Args:
      tokenizer: fingerprint of the model's image tokenizer. Codes of another are let go: it reads the picture.

    Raises UserError where the pictures of the session have another size than the model's.
    """
    self._size, self._tokenizer = settings.buckets[0].pixels, tokenizer
    size = self._drawn.get("size")
    if size and tuple(size) != self._size:
      raise UserError(
        f"{self.path} is a session with pictures of {size[1]}×{size[0]} pixels, and this model draws "
        f"{self._size[1]}×{self._size[0]}; go on with the model it was begun with, or give another {PATH_FLAG}"
      )
    if self._drawn.get("tokenizer") != tokenizer:
      for exchange in self.exchanges:
        exchange.answer = [Shown(part.file) if isinstance(part, Shown) else part for part in exchange.answer]

  def said(self, settings: Settings) -> list[Turn]:
    """The exchanges as turns, pictures at the size of these settings. UserError where one is gone."""
    return [
      self._turn(part, is_target, settings)
      for exchange in self.exchanges
      for parts, is_target in ((exchange.asked, False), (exchange.answer, True))
      for part in parts
    ]

  def add_picture(self, encoded: bytes, suffix: str) -> str:
    """Keeps a picture under the next number; the name of its file."""
    numbers = [int(found[1]) for path in self.path.iterdir() if (found := NUMBERED.fullmatch(path.name))]
    name = f"{max(numbers, default=0) + 1:03}{suffix}"
    with writing(self.path / name):
      write_whole(self.path / name, encoded)
    return name

  def add_pixels(self, pixels: np.ndarray) -> str:
    """The same of pixels (H, W, 3) uint8, as PNG."""
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    return self.add_picture(png.getvalue(), ".png")

  def save(self):
    """Writes what was said up to now."""
    lines = [*self._before, *([self._line()] if self.exchanges else [])]
    content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    with writing(self._file):
      write_whole(self._file, content.encode())

  def begin_another(self):
    """Another conversation of the same session."""
    if self.exchanges:
      self._before.append(self._line())
    self.exchanges = []

  def copy(self, path: Path):
    """A session of its own with all that is in this one. UserError where there is something already."""
    if path.exists():
      raise UserError(f"{path} is there already; give the name of a folder that is not")
    with writing(path):
      shutil.copytree(self.path, path, ignore=shutil.ignore_patterns(LOCK))

  def close(self):
    """Lets others have it. A folder in which nothing was said goes."""
    self._lock.close()
    if {entry.name for entry in self.path.iterdir()} <= {LOCK}:
      with contextlib.suppress(OSError):
        (self.path / LOCK).unlink(missing_ok=True)
        self.path.rmdir()

  def _turn(self, part: Part, is_target: bool, settings: Settings) -> Turn:
    if isinstance(part, str):
      return TextTurn(part, is_target)
    known = part.codes is not None
    return ImageTurn(part.codes if known else read_picture(self.path / part.file, settings), is_target)

  def _line(self) -> dict[str, Any]:
    codes = {
      part.file: part.codes.tolist()
      for exchange in self.exchanges
      for part in exchange.answer
      if isinstance(part, Shown) and part.codes is not None
    }
    messages = [
      {"role": role, "content": [_part_to_json(part) for part in parts]}
      for exchange in self.exchanges
      for role, parts in ((USER, exchange.asked), (ASSISTANT, exchange.answer))
    ]
    drawn = {"size": list(self._size), "tokenizer": self._tokenizer, "codes": codes}
    return {"messages": messages, **({"drawn": drawn} if codes else {})}


def _part_to_json(part: Part) -> dict[str, Any]:
  if isinstance(part, str):
    return {"type": "text", "text": part}
  return {"type": "image_url", "image_url": {"url": part.file}}


def _lines(file: Path) -> list[dict]:
  """The conversations of a file, none where there is no file. UserError where a line is not JSON: saving writes all of
  the file again, and nothing shall be lost."""
  try:
    content = file.read_bytes() if file.exists() else b""
  except OSError as error:
    raise UserError(f"{file} cannot be read: {error.strerror}; mend that, or give another {PATH_FLAG}") from None
  found = []
  for number, line in enumerate(content.split(b"\n"), 1):
    if line.strip():
      try:
        found.append(dict(strict_json.loads(line)))
      except (ValueError, TypeError):
        raise UserError(f"{file}:{number} is no JSON object; mend the line, or give another {PATH_FLAG}") from None
  return found


def _read(line: Mapping[str, Any], where: str) -> tuple[list[Exchange], Mapping[str, Any]]:
  """The exchanges of a line, and what it says of drawn pictures. UserError where it is no line of `SessionFolder`."""
  try:
    drawn = line.get("drawn") or {"size": None, "codes": {}}
    codes = {name: np.array(rows, np.int32) for name, rows in drawn["codes"].items()}
    if any(own.ndim != 2 or not own.size for own in codes.values()):
      raise ValueError("codes")
    exchanges: list[Exchange] = []
    for message, role in zip(line["messages"], ROLES * len(line["messages"])):
      parts = [_part_from_json(part, codes) for part in message["content"]]
      if message["role"] != role or not parts:
        raise ValueError(message["role"])
      if role == USER:
        exchanges.append(Exchange(parts))
      else:
        exchanges[-1].answer = parts
    if not exchanges or not exchanges[-1].answer:
      raise ValueError("no answer")
  except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
    raise UserError(
      f"{where} is not a conversation as launch.chat writes it, turns of user and assistant one after the other; "
      f"give another {PATH_FLAG}"
    ) from None
  return exchanges, drawn


def _part_from_json(part: Any, codes: Mapping[str, np.ndarray]) -> Part:
  match part:
    case {"type": "text", "text": str(text)} if text:
      return text
    case {"type": "image_url", "image_url": {"url": str(name)}} if Path(name).name == name:
      return Shown(name, codes.get(name))
  raise ValueError("no part")
