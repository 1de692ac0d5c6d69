"""A conversation with a trained run, at a terminal or from a script.

python -m launch.chat --workdir=runs/mine
python -m launch.chat --workdir=runs/mine --session=cats                  # begins a session there, or goes on with it
python -m launch.chat --workdir=runs/mine --prompt="a red star" --prompt="now larger" --session=star
python -m launch.chat --workdir=runs/mine --image=cat.png < questions.txt

Type what to draw or to answer; /help lists what else a line can do. Texts come as they are written, and each picture is
written to a file of the session as soon as it is finished. docs/conversation.md has the rest.
"""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from omniimage.commands import command
from omniimage.errors import UserError
from omniimage.ranges import SEEDS

from . import cli, number_flags, sampling_flags

WORKDIR = cli.path_flag("workdir", "The run to talk to.")
SESSION = cli.path_flag("session", "The session's folder, made or gone on with. Default: WORKDIR/chats/TIME.")
PROMPT = flags.DEFINE_multi_string("prompt", [], "A line to say instead of reading any; repeat it, in order.")
IMAGE = flags.DEFINE_multi_string("image", [], "A picture to show with the first line; repeat it, in order.")
ASPECT_RATIO = flags.DEFINE_string(
  "aspect_ratio", None, "Width:height of the pictures, one of the run's data.aspect_ratios. Default: the first."
)
SEED = number_flags.whole("seed", 0, "Of the first answer; those after it count on.", SEEDS)
PICTURES = flags.DEFINE_bool("pictures", None, "Show pictures in the terminal. Default: where it has 24-bit colors.")

CHATS = "chats"  # the folder of sessions in a workdir
READY = "> "


def main(argv: list[str]):
  if argv[1:]:
    raise UserError(f"{argv[1]!r} is not a flag; put what you say in quotes: --prompt='a red star'")
  if not WORKDIR.value:
    raise UserError("give --workdir=runs/scenes, the run to talk to")
  if PROMPT.value and not all(prompt.strip() for prompt in PROMPT.value):
    raise UserError("--prompt is empty; say what to draw, for example --prompt='a large red star'")

  from omniimage.chat import commands, half_blocks  # after the flags: a wrong one should not wait for jax
  from omniimage.chat.display import Display
  from omniimage.chat.folder import SessionFolder
  from omniimage.chat.learnt import learnt
  from omniimage.chat.talk import Talk
  from omniimage.sampling.prompts import check_text
  from omniimage.settings import require
  from omniimage.systems import load_run, open_generator, open_system, system_named
  from omniimage.training.coded import fingerprint
  from omniimage.workdir import Workdir

  for prompt in PROMPT.value:
    check_text(prompt)
  images = [path for typed in IMAGE.value for path in commands.files_of(typed)]
  Workdir(WORKDIR.value).read_settings()  # nor is a session begun of what is no run
  folder = SessionFolder(SESSION.value or unused(WORKDIR.value / CHATS / time.strftime("%Y%m%d-%H%M%S")))
  with contextlib.closing(folder):
    run = load_run(WORKDIR.value)
    require(
      "turns" in system_named(run.settings.system).abilities,
      f"a run of config.system={run.settings.system!r} answers no conversations; draw with {command('sample')}",
    )
    if ASPECT_RATIO.value is not None:
      run = dataclasses.replace(run, settings=run.settings.drawing(ASPECT_RATIO.value))
    turns = folder.turns(run.settings, fingerprint(run.params["tokenizer"]))
    system = open_system(sampling_flags.overridden(run.settings), run.text_tokenizer.size)
    generator = open_generator(system, run.params, run.text_tokenizer)
    typing = not PROMPT.value and sys.stdin.isatty() and sys.stdout.isatty()
    shows = half_blocks.can_show(sys.stdout) if PICTURES.value is None else PICTURES.value
    knows = learnt(run.settings, run.text_tokenizer, generator.omni.vocabulary)
    display = Display(sys.stdout, sys.stderr, shows)
    talk = Talk(generator, knows, folder, turns, display, SEED.value, interruptible=typing)
    for path in images:
      talk.add_picture(path)
    if typing:
      talk.note(f"{WORKDIR.value} at step {run.step}. {knows} /help lists what else there is.")
    converse(talk, typed() if typing else PROMPT.value or piped(), mends=typing)
    if talk.waits and not typing:
      raise UserError("a picture was given and nothing said with it; ask something, as --prompt='what is it'")
    if folder.exchanges:
      talk.note(f"session: {folder.path}")


def converse(talk, lines: Iterator[str], mends: bool):
  """Line by line, up to the last or one that asks to leave. UserError at the first line that cannot be, unless a person
  `mends` it with the next."""
  for line in lines:
    try:
      talk.hear(line)
    except UserError as error:
      if not mends:
        raise
      talk.note(f"error: {error}")
    if talk.over:
      return


def typed() -> Iterator[str]:
  """Lines of a person at a terminal, until ctrl-D. Ctrl-C takes back what is in the line."""
  from omniimage.chat.interrupts import interrupting

  with contextlib.suppress(ImportError):
    import readline  # noqa: F401  (from here on `input` can be edited)
  _in_utf8()

  def interrupt():
    raise KeyboardInterrupt

  while True:
    try:
      with interrupting(interrupt):
        line = input(READY)
    except KeyboardInterrupt:
      print("\nctrl-D leaves")
      continue
    except EOFError:
      print()
      return
    yield line


def piped() -> Iterator[str]:
  """Lines of a script. Blank ones say nothing."""
  _in_utf8()
  return (line.rstrip("\r\n") for line in sys.stdin if line.strip())


def unused(path: Path) -> Path:
  """This folder, or one of the next names where it is there already."""
  names = (path, *(path.with_name(f"{path.name}-{number}") for number in range(2, 1000)))
  return next(name for name in names if not name.exists())


def _in_utf8():
  sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")  # what is none becomes an error of its line


if __name__ == "__main__":
  cli.run(main)
