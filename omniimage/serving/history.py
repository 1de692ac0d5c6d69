"""Conversations of the page, kept in the run's folder, each in one that `launch.chat --session` goes on with and
`launch.prepare` reads.

Their names are drawn at random, and a browser knows its own: who knows none sees none. Names in requests are matched
against what names are, so that nothing else of the disk can be asked for.
"""

import collections
import contextlib
import json
import re
import secrets
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omniimage.chat.folder import NUMBERED, Exchange, SessionFolder, Shown
from omniimage.data.conversation import Turn
from omniimage.data.text import as_text
from omniimage.errors import UserError
from omniimage.serving.pictures import as_base64, encoded, suffix_of
from omniimage.serving.refusals import Refused
from omniimage.settings import Settings
from omniimage.vocabulary import ASSISTANT, ROLES, USER

NAME = re.compile(r"[0-9a-f]{32}")
KINDS = {
  ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif",
  ".bmp": "image/bmp",
}  # fmt: skip
REMEMBERED = 1024  # drawn pictures whose codes are known although no conversation has them yet
MOST_PICTURES = 10_000  # of a conversation

Message = dict[str, Any]  # {"role": …, "content": [{"type": "text", "text": …} or {"type": "picture", "name": …}, …]}

# Axes: H × W pixels, h × w visual tokens.


class History:
  """For all threads; each conversation is read and written by one at a time."""

  def __init__(self, root: Path, tokenizer: str):
    """`tokenizer`: fingerprint of the model's image tokenizer."""
    self._root, self._tokenizer = root, tokenizer
    self._locks = [threading.Lock() for _ in range(256)]  # by the first byte of a name
    self._codes: collections.OrderedDict[tuple[str, str], np.ndarray] = collections.OrderedDict()

  @staticmethod
  def new_name() -> str:
    return secrets.token_hex(16)

  def messages(self, name: str) -> list[Message]:
    """What was said. Refused where there is no such conversation."""
    with self._opened(name) as folder:
      return [
        {"role": role, "content": [_shown(part) for part in parts]}
        for exchange in folder.exchanges
        for role, parts in ((USER, exchange.asked), (ASSISTANT, exchange.answer))
      ]

  def turns(self, name: str, messages: Sequence[Message], settings: Settings) -> list[Turn]:
    """A conversation as a model of these settings reads it, which need not have been saved."""
    with self._opened(name, new=True) as folder:
      folder.belong_to(settings, self._tokenizer)
      folder.exchanges = self._exchanges(name, messages, folder)
      return folder.said(settings)

  def save(self, name: str, messages: Sequence[Message], settings: Settings):
    """Keeps a conversation in which each of the user's turns is answered."""
    with self._opened(name, new=True) as folder:
      folder.belong_to(settings, self._tokenizer)
      exchanges = self._exchanges(name, messages, folder)
      if exchanges and not exchanges[-1].answer:
        raise Refused("a conversation is kept up to its last answer", field="messages")
      folder.exchanges = exchanges
      folder.save()

  def add_picture(self, name: str, content: bytes) -> str:
    """Keeps a picture of the user's as it came; the name of its file."""
    with self._opened(name, new=True) as folder:
      if sum(1 for _ in folder.path.iterdir()) > MOST_PICTURES:
        raise Refused(f"a conversation has {MOST_PICTURES:,} pictures at most; begin another", 413)
      return folder.add_picture(content, suffix_of(content))

  def add_drawn(self, name: str, pixels: np.ndarray, codes: np.ndarray) -> str:
    """Keeps a picture (H,W,3) in [-1, 1] that the model has drawn, and for a while its codes (h,w)."""
    with self._opened(name, new=True) as folder:
      file = folder.add_picture(encoded(pixels), ".png")
    self._codes[name, file] = codes.astype(np.int32)
    while len(self._codes) > REMEMBERED:
      self._codes.popitem(last=False)
    return file

  def picture(self, name: str, file: str) -> tuple[bytes, str]:
    """A picture and its media type. Refused where there is none."""
    path = self._path(name) / file
    if not NUMBERED.fullmatch(file) or path.is_symlink() or not path.is_file():
      raise Refused("there is no such picture", 404)
    return path.read_bytes(), KINDS.get(path.suffix, "application/octet-stream")

  def export(self, name: str) -> bytes:
    """A line of JSON that holds all of a conversation, pictures too, as `launch.prepare` reads it."""
    messages = self.messages(name)
    for message in messages:
      message["content"] = [self._exported(name, part) for part in message["content"]]
    return json.dumps({"messages": messages}, ensure_ascii=False).encode() + b"\n"

  def delete(self, name: str):
    with self._opened(name):
      pass
    shutil.rmtree(self._path(name), ignore_errors=True)

  def _exported(self, name: str, part: Message) -> Message:
    if part["type"] == "text":
      return part
    content, kind = self.picture(name, part["name"])
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{as_base64(content)}"}}

  def _path(self, name: str) -> Path:
    if not NAME.fullmatch(name):
      raise Refused("there is no such conversation", 404)
    return self._root / name

  @contextlib.contextmanager
  def _opened(self, name: str, new: bool = False) -> Iterator[SessionFolder]:
    """Its folder. Refused where there is none, or its errors, which name files, in words of their own."""
    path = self._path(name)
    with self._locks[int(name[:2], 16)]:
      if not new and not path.is_dir():
        raise Refused("there is no such conversation", 404)
      try:
        with contextlib.closing(SessionFolder(path)) as folder:
          yield folder
      except Refused:
        raise
      except UserError as error:
        reason = str(error).replace(str(path), "the conversation").replace(str(self._root), "")
        raise Refused(reason.partition("; ")[0] + "; begin another conversation", 409) from None

  def _exchanges(self, name: str, messages: Sequence[Message], folder: SessionFolder) -> list[Exchange]:
    """Messages as a session has them. Refused where they are none."""
    known = {
      part.file: part.codes for exchange in folder.exchanges for part in exchange.answer if isinstance(part, Shown)
    }
    exchanges: list[Exchange] = []
    for i, (message, role) in enumerate(zip(messages, ROLES * len(messages))):
      match message:
        case {"role": found, "content": [_, *_] as content} if found == role:
          pass
        case _:
          raise Refused(f"messages[{i}] must be of the {role}, with a list of parts as its content", field="messages")
      parts = [self._part(name, part, role, known, folder.path) for part in content]
      if role == USER:
        exchanges.append(Exchange(parts))
      else:
        exchanges[-1].answer = parts
    return exchanges

  def _part(self, name: str, part: Any, role: str, known: dict[str, np.ndarray | None], folder: Path) -> str | Shown:
    match part:
      case {"type": "text", "text": str(text)} if as_text(text).strip():
        return as_text(text)
      case {"type": "picture", "name": str(file)} if NUMBERED.fullmatch(file) and (folder / file).is_file():
        codes = known.get(file)
        return Shown(file, self._codes.get((name, file)) if codes is None and role == ASSISTANT else codes)
    raise Refused(
      'a part must be {"type": "text", "text": …} or {"type": "picture", "name": …} of a picture of this conversation',
      field="messages",
    )


def _shown(part: str | Shown) -> Message:
  return {"type": "text", "text": part} if isinstance(part, str) else {"type": "picture", "name": part.file}
