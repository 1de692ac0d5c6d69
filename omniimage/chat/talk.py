"""A conversation line by line: what is typed is said or done, what is answered is shown and kept."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omniimage.chat import commands
from omniimage.chat.display import Display, near
from omniimage.chat.folder import Exchange, SessionFolder, Shown
from omniimage.chat.interrupts import interrupting
from omniimage.chat.learnt import Learnt
from omniimage.data.conversation import ImageTurn, TextTurn, Turn
from omniimage.data.formats.captions import clean
from omniimage.errors import UserError
from omniimage.sampling.chat import Chat
from omniimage.sampling.events import Image, Text, TextEnd, to_uint8
from omniimage.sampling.generate import Generator
from omniimage.sampling.pictures import read_picture
from omniimage.sampling.prompts import ConversationFull, check_text
from omniimage.sampling.session import Session
from omniimage.settings import SamplingSettings, Settings

OpenChat = Callable[[Generator, Sequence[Turn], int], Chat]

# Axes: H × W pixels.


@dataclasses.dataclass(frozen=True, eq=False)
class Waiting:
  """A picture that is shown with what is said next: its file as it came, and as the model reads it (H, W, 3) uint8."""

  encoded: bytes
  suffix: str
  pixels: np.ndarray


class Talk:
  """A conversation of a session, and what its lines do to it.

  Attributes:
    learnt: what an answer is.
    over: whether a line has asked to leave.
  """

  def __init__(
    self,
    generator: Generator,
    learnt: Learnt,
    folder: SessionFolder,
    turns: Sequence[Turn],
    display: Display,
    seed: int = 0,
    interruptible: bool = False,
    open_chat: OpenChat = Chat,
  ):
    """`turns`: those of the folder. `interruptible`: ctrl-C stops an answer and not the program."""
    self.learnt, self.over = learnt, False
    self._generator, self._open_chat, self._folder, self._display = generator, open_chat, folder, display
    self._interruptible = interruptible
    self._changes: dict[str, Any] = {}
    self._waiting: list[Waiting] = []
    self._chat = open_chat(generator, turns, seed)

  @property
  def _settings(self) -> Settings:
    return self._generator.omni.settings

  @property
  def waits(self) -> int:
    """How many pictures wait to be shown."""
    return len(self._waiting)

  @property
  def sampling(self) -> SamplingSettings:
    """How answers are drawn."""
    return dataclasses.replace(self._settings.sampling, **self._changes)

  @property
  def seed(self) -> int:
    """Of the next answer; it counts on with each."""
    return (self._chat.seed + self._chat.answers) % 2**64

  @seed.setter
  def seed(self, value: int):
    self._chat.seed = (value - self._chat.answers) % 2**64

  def hear(self, line: str):
    """Does what a line says. UserError, before anything is computed, where that cannot be."""
    check_text(line)
    if line.startswith(commands.MARK) and not line.startswith(2 * commands.MARK):
      commands.perform(self, line)
    else:
      self._say(clean(line.removeprefix(commands.MARK) if line.startswith(2 * commands.MARK) else line, "the line"))

  def note(self, text: str):
    self._display.note(text)

  def add_picture(self, path: Path) -> tuple[int, int]:
    """Shows it with what is said next; height and width that it is seen at. UserError where it is no picture that can
    be read."""
    pixels = read_picture(path, self._settings)
    self._waiting.append(Waiting(path.read_bytes(), path.suffix.lower() or ".png", pixels))
    return pixels.shape[:2]

  def change(self, changes: Mapping[str, Any]):
    """Draws with other settings from here on. SettingsError where they cannot be."""
    changed = {**self._changes, **changes}
    dataclasses.replace(self._settings, sampling=dataclasses.replace(self._settings.sampling, **changed))
    self._changes = changed

  def undo(self):
    """Takes back the pictures that wait, or else the last exchange."""
    if self._waiting:
      self._waiting = []
      self.note("the pictures that were to be shown are taken back")
    elif self._chat.undo():
      self._folder.exchanges.pop()
      self._folder.save()
      self.note("the last exchange is taken back")
    else:
      self.note("nothing was said yet")

  def begin_another(self):
    """A conversation of the same session in which nothing was said. The seed counts on."""
    seed = self.seed
    self._folder.begin_another()
    self._chat = self._open_chat(self._generator, (), seed)

  def save_copy(self, path: Path):
    """UserError where the folder is there already or cannot be made."""
    self._folder.copy(path)
    self.note(f"saved: {near(path)}")

  def _say(self, text: str):
    if not text and not self._waiting:
      self.note("say what to draw, or ask; /help lists what else there is")
      return
    if self.learnt.exchanges == 1 and self._chat.turns:
      self.begin_another()
    before, asked = list(self._chat.turns), [*(waiting.pixels for waiting in self._waiting), *([text] if text else [])]
    try:
      session = self._chat.say(*asked, answer=self.learnt.answer, **self._changes)
    except ConversationFull as error:
      again = "it is too long for this model" if not before else "/new begins another conversation, /undo takes back"
      raise UserError(f"{error}: {again}") from None
    files = [Shown(self._folder.add_picture(waiting.encoded, waiting.suffix)) for waiting in self._waiting]
    self._waiting = []
    exchange = Exchange([*files, *([text] if text else [])])
    try:
      with interrupting(session.cancel) if self._interruptible else contextlib.nullcontext():
        self._listen(session, exchange)
    finally:
      session.cancel()
      self._display.end()
      self._settle(before, len(asked), exchange)

  def _listen(self, session: Session, exchange: Exchange):
    """Shows the answer and keeps each part of it as soon as that is whole."""
    unfinished = ""
    for event in session:
      self._display.show(event)
      match event:
        case Text(text):
          unfinished += text
        case TextEnd(text):
          unfinished = ""
          self._keep(exchange, text)
        case Image():
          pixels = to_uint8(event.pixels)
          shown = Shown(self._folder.add_pixels(pixels), event.codes.astype(np.int32))
          self._display.picture(pixels, self._folder.path / shown.file)
          self._keep(exchange, shown)
    self._keep(exchange, unfinished)

  def _keep(self, exchange: Exchange, part: str | Shown):
    if not part:
      return
    exchange.answer.append(part)
    if any(isinstance(part, Shown) or clean(part, "the answer") for part in exchange.answer):
      if not self._folder.exchanges or self._folder.exchanges[-1] is not exchange:
        self._folder.exchanges.append(exchange)
      self._folder.save()

  def _settle(self, before: Sequence[Turn], asked: int, exchange: Exchange):
    """Has the model remember what was shown, no more: a part that was finished while it was interrupted was not."""
    if self._folder.exchanges and self._folder.exchanges[-1] is exchange:
      answer = [_said(part) for part in exchange.answer]
      self._chat.turns = [*self._chat.turns[: len(before) + asked], *answer]
    else:
      self._chat.turns = list(before)
      self.note("nothing was answered, so what you have said is taken back")


def _said(part: str | Shown) -> Turn:
  return TextTurn(part, is_target=True) if isinstance(part, str) else ImageTurn(part.codes, is_target=True)
