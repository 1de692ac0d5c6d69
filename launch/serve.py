"""Serves a trained run: a page for people, the interface that programs know.

python -m launch.serve --workdir=runs/mine                      # http://127.0.0.1:8000
python -m launch.serve --workdir=runs/mine --host=0.0.0.0 --token_file=token.txt
curl 127.0.0.1:8000/v1/images/generations -H 'content-type: application/json' -d '{"prompt": "a red star"}'

docs/serving.md has the rest.
"""

import sys
from pathlib import Path

from absl import flags

from omniimage.commands import command
from omniimage.errors import UserError
from omniimage.ranges import Range

from . import cli, number_flags, sampling_flags

WORKDIR = cli.path_flag("workdir", "The run to serve.")
HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen at; 0.0.0.0 is every one that this machine has.")
PORT = number_flags.whole("port", 8000, "Port to listen at; 0 is any that is free.", Range(0, 65535))
TOKEN_FILE = cli.path_flag("token_file", "A file whose first line every request must bear as its token.")
BATCH = number_flags.whole("batch", 4, "Images that are drawn at once, at most.", Range(1, 1024))
WAITING = number_flags.whole("waiting", 64, "Answers that may wait to be begun; those beyond get 429.", Range(0, 65536))

CONVERSATIONS = "conversations"  # the folder of those of the page in a workdir


def main(argv: list[str]):
  if argv[1:]:
    raise UserError(f"{argv[1]!r} is not a flag; give --workdir=runs/scenes")
  if not WORKDIR.value:
    raise UserError("give --workdir=runs/scenes, the run to serve")
  token = read_token(TOKEN_FILE.value) if TOKEN_FILE.value else ""
  try:
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
  except ImportError:
    raise UserError("serving needs starlette and uvicorn: pip install 'omniimage[serve]'") from None

  from omniimage.serving.engine import Engine  # after the flags: a wrong one should not wait for jax
  from omniimage.serving.limits import Limits
  from omniimage.serving.listening import bound, serve, warning
  from omniimage.serving.studio import Studio
  from omniimage.settings import require
  from omniimage.systems import load_run, system_named

  socket = bound(HOST.value, PORT.value)  # nor should an address that is taken
  run = load_run(WORKDIR.value)
  require(
    "turns" in system_named(run.settings.system).abilities,
    f"a run of config.system={run.settings.system!r} answers no conversations; draw with {command('sample')}",
  )
  studio = Studio.open(run, sampling_flags.overridden(run.settings), BATCH.value)
  if told := warning(socket, token):
    print(f"warning: {told}", file=sys.stderr)
  engine = Engine(studio, Limits(waiting=WAITING.value))
  serve(engine, run, WORKDIR.value / CONVERSATIONS, socket, token)


def read_token(path: Path) -> str:
  """The first line of a file. UserError where there is none that a header can hold."""
  try:
    token = path.read_text(encoding="utf-8").partition("\n")[0].strip()
  except (OSError, UnicodeError) as error:
    raise UserError(f"--token_file={path} cannot be read: {getattr(error, 'strerror', None) or 'no UTF-8'}") from None
  if len(token) < 8 or not token.isascii() or not token.isprintable() or " " in token:
    raise UserError(f"--token_file={path}: its first line must be 8 or more ASCII characters without spaces")
  return token


if __name__ == "__main__":
  cli.run(main)
