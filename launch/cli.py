"""What the commands share: absl flags, and errors that a person can mend as one line."""

import re
import sys
from collections.abc import Callable

from absl import app, flags

from omniimage.errors import UserError


def run(main: Callable[[list[str]], None]):
  """`app.run`, but a wrong flag or a UserError is one printed line and exit code 2, without a traceback."""

  def guarded(argv):
    try:
      main(argv)
    except UserError as error:
      _stop(str(error))

  app.run(guarded, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    _stop(_last_error(str(error)))
  except AttributeError as error:  # of ml_collections, for a key that the config does not have
    words = str(error).replace("\\'", "'").replace("\n", " ")
    unknown = re.search(r"'+(\w+)'", words)
    near = re.search(r'Did you mean "(\w+)"', words)
    given = [arg for arg in argv if unknown and re.match(rf"--config\.([\w.]*\.)?{unknown[1]}\b", arg)]
    hint = f"; did you mean {near[1]}?" if near else "; see the config file for the keys there are"
    _stop(f"{given[0] if given else words} is not a setting of this config{hint}")
  except (KeyError, TypeError, ValueError, OSError) as error:
    _stop(_last_error(str(error)))


def _last_error(message: str) -> str:
  """The last `SomethingError: …` line of a message that carries a whole traceback, else the message as one line."""
  raised = re.findall(r"^\s*(?:\w+\.)*\w+Error: (.+)$", message, re.MULTILINE)
  return raised[-1] if raised else " ".join(message.split())


def _stop(message: str):
  print(f"error: {message}", file=sys.stderr)
  sys.exit(2)
