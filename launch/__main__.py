"""All commands as one: `omniimage train --config=scenes …` is `python -m launch.train --config=scenes …`."""

import ast
import runpy
import sys
from pathlib import Path

from omniimage import signals

COMMANDS = ("prepare", "train", "sample", "animate", "chat", "serve", "evaluate", "export", "plan", "convert")


def main():
  signals.begin()
  name = sys.argv[1] if len(sys.argv) > 1 else ""
  if name in COMMANDS:
    del sys.argv[1]
    runpy.run_module(f"{__package__}.{name}", run_name="__main__", alter_sys=True)
    return
  if name not in ("", "help", "-h", "--help", "-?"):
    print(f"error: {name!r} is no command; they are {', '.join(COMMANDS)}", file=sys.stderr)
    sys.exit(2)
  print("omniimage COMMAND --FLAG=…\n")
  for command in COMMANDS:
    print(f"  {command:<10}{_about(command)}")
  print("\nomniimage COMMAND --help tells its flags.")


def _about(command: str) -> str:
  """The first sentence of what the command says of itself."""
  path = Path(__file__).with_name(f"{command}.py")
  return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).split("\n\n")[0].replace("\n", " ")


if __name__ == "__main__":
  main()
