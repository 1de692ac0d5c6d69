"""Lines that begin with "/": a row of COMMANDS each."""

import dataclasses
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omniimage.chat.display import near
from omniimage.errors import UserError
from omniimage.paths import absolute
from omniimage.ranges import SEEDS
from omniimage.settings import SamplingSettings

if TYPE_CHECKING:
  from omniimage.chat.talk import Talk

MARK = "/"  # a text that begins with it is written with two


@dataclass(frozen=True)
class Command:
  """A command.

  Attributes:
    takes: what stands behind its name, for /help.
    does: the same, in words.
    act: does it, given what stands behind its name. UserError where that cannot be.
  """

  takes: str
  does: str
  act: Callable[["Talk", str], None]


def perform(talk: "Talk", line: str):
  """Does what a line says that begins with MARK. UserError where there is no such command."""
  name, _, rest = line.removeprefix(MARK).partition(" ")
  if name not in COMMANDS:
    raise UserError(
      f"there is no command {MARK}{name}; {MARK}help lists them; a text that begins with {MARK} is written with two"
    )
  command, rest = COMMANDS[name], rest.strip()
  if rest and not command.takes:
    raise UserError(f"{MARK}{name} stands alone, without {rest!r}")
  command.act(talk, rest)


def files_of(typed: str) -> list[Path]:
  """The files that are meant: one whose name is all of it, spaces and quotes included, else names as a shell has them.

  UserError where there is none.
  """
  whole = absolute(typed) if typed else None
  if whole is None:
    raise UserError("give the name of a picture: /image cat.png")
  if whole.exists():
    return [whole]
  try:
    return [absolute(name) for name in shlex.split(typed)]
  except ValueError:  # a quotation mark without its partner
    return [whole]


def folder_of(typed: str) -> Path:
  """The folder that is meant, its name in quotes or not, with spaces or not. UserError where there is none."""
  if not typed:
    raise UserError("give the folder to make: /save cats")
  try:
    words = shlex.split(typed)
  except ValueError:
    words = []
  return absolute(words[0] if len(words) == 1 else typed)


def number_of(name: str, typed: str) -> float | int:
  """A value of a setting of sampling. UserError where there is no such setting or it is no number."""
  kinds = {field.name: field for field in dataclasses.fields(SamplingSettings)}
  if name not in kinds:
    raise UserError(f"there is no {name!r} to set; there are {', '.join(kinds)}")
  try:
    return int(typed)
  except ValueError:
    pass
  try:
    return float(typed)
  except ValueError:
    raise UserError(f"{name}={typed!r} is no number; write it as /set {name}=2") from None


def _image(talk: "Talk", rest: str):
  for path in files_of(rest):
    height, width = talk.add_picture(path)
    talk.note(f"{near(path)}: seen at {width}×{height} pixels, together with what you say next")


def _seed(talk: "Talk", rest: str):
  if rest:
    if not (rest.isascii() and rest.isdecimal()) or len(rest) > 20 or int(rest) not in SEEDS:
      raise UserError(f"the seed {rest!r} must be a whole number {SEEDS}")
    talk.seed = int(rest)
  talk.note(f"the next answer has seed {talk.seed}")


def _set(talk: "Talk", rest: str):
  changes: dict[str, Any] = {}
  for word in rest.split():
    name, equals, typed = word.partition("=")
    if not equals:
      raise UserError(f"{word!r} sets nothing; write it as /set guidance=2")
    changes[name] = number_of(name, typed)
  talk.change(changes)
  talk.note(" ".join(f"{name}={value}" for name, value in dataclasses.asdict(talk.sampling).items()))


def _undo(talk: "Talk", rest: str):
  talk.undo()


def _new(talk: "Talk", rest: str):
  talk.begin_another()
  talk.note("another conversation")


def _save(talk: "Talk", rest: str):
  talk.save_copy(folder_of(rest))


def _help(talk: "Talk", rest: str):
  usages = {f"{MARK}{name} {command.takes}".rstrip(): command.does for name, command in COMMANDS.items()}
  width = max(map(len, usages))
  talk.note("\n".join(f"{usage:{width}}  {does}" for usage, does in usages.items()))
  talk.note(f"All else is said. Ctrl-C stops an answer; of it stays what is finished. {talk.learnt}")


def _quit(talk: "Talk", rest: str):
  talk.over = True


COMMANDS: dict[str, Command] = {
  "image": Command("FILE …", "shows pictures, together with what you say next", _image),
  "seed": Command("[NUMBER]", "of the next answer; those after it count on", _seed),
  "set": Command(
    "[NAME=NUMBER …]", "how it is drawn from here on, as guidance=2 temperature=0.5; alone: what is set", _set
  ),
  "undo": Command("", "takes back the last exchange, or the pictures that wait to be shown", _undo),
  "new": Command("", "begins another conversation; the session keeps this one", _new),
  "save": Command("FOLDER", "copies the session, which is also saved by itself", _save),
  "help": Command("", "this", _help),
  "quit": Command("", "leaves, as ctrl-D does", _quit),
}
