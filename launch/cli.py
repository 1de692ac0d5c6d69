"""What the commands share: absl flags, quiet libraries, and errors that a person can mend as one line.

Such an error is printed as `error: …` on stderr, without a traceback, and the command ends with its exit code: 2, or 75
where nothing is wrong but the same command should be run again.
"""

import logging as stdlib_logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging

from omniimage import buckets, signals
from omniimage.errors import UserError
from omniimage.paths import absolute, anywhere

flags.disclaim_key_flags()  # those of `path_flag` are the command's

Main = Callable[[list[str]], None]

# What the parsers of values say, and what they mean.
EXPECTED = (
  ("invalid literal for int", "expected a whole number"),
  ("Exceeds the limit .* for integer string conversion", "expected a whole number, of fewer digits"),
  ("could not convert string to float", "expected a number"),
  ("Non-boolean argument", "expected true or false"),
  ("Failed to parse .* as a ConfigDict", "this is a group of settings; give one of them, as in {name}.KEY=VALUE"),
)


class _PathParser(flags.ArgumentParser):
  syntactic_help = "a path"

  def __init__(self, parse: Callable[[str | Path], Path]):
    super().__init__()
    self.parse = parse


def path_flag(name: str, help_text: str, in_buckets: bool = False) -> flags.FlagHolder:
  """Defines a flag that names a file or folder; its value is an absolute Path, or None. With `in_buckets` it may be
  gs://BUCKET/FOLDER too, an `epath.Path`."""
  parser = _PathParser(anywhere if in_buckets else absolute)
  return flags.DEFINE(parser, name, None, help_text, serializer=flags.ArgumentSerializer())


def run(main: Main):
  """`app.run` with the errors of this module."""
  signals.begin()
  os.environ["JAX_ENABLE_X64"] = "0"  # jax is imported later; a run is of 32 bits, or its noise would be other noise
  for stream in (sys.stdout, sys.stderr):  # names of files may hold what is no text
    stream.reconfigure(errors="backslashreplace")
  try:
    app.run(mendable(main), flags_parser=parse)
  except SystemExit as end:
    if not end.code:
      signals.ignore()  # the work is done, and Python, while it ends, would die of them
      raise
    # At once: threads that a full disk has stopped would otherwise be torn down with tracebacks of their own.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(end.code if isinstance(end.code, int) else 1)


def mendable(main: Main) -> Main:
  """`main`, its UserErrors printed as one line."""

  def guarded(argv: list[str]):
    try:
      return main(argv)
    except UserError as error:
      _stop(str(error), error.exit_code)
    except Exception as error:
      if not (why := buckets.trouble(error)):
        raise
      _stop(f"a bucket cannot be read or written: {why}; mend that, and run the same command again")
    except KeyboardInterrupt:
      _stop("interrupted", signals.INTERRUPTED)

  return guarded


def parse(argv: list[str]) -> list[str]:
  """Reads the flags and returns what is no flag. Wrong flags end the process. Unless --verbosity asks for more, the
  libraries' logs are quiet up to warnings."""
  try:
    rest = flags.FLAGS(argv)
  except flags.Error as error:
    _stop(_wrong_value(str(error)))
  except (AttributeError, KeyError) as error:  # of ml_collections, for a key that the config does not have
    _stop(_unknown_key(str(error), argv))
  except (TypeError, ValueError, OSError) as error:
    _stop(_last_error(str(error)))
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)
    logging.get_absl_handler().addFilter(_no_traceback_of_orbax)  # not of the logger: a run's log file has it
  return rest


def _no_traceback_of_orbax(record: stdlib_logging.LogRecord) -> bool:
  """What fails in its threads it also raises, and that becomes one line."""
  return "/orbax/" not in record.pathname or record.levelno < stdlib_logging.ERROR


def _wrong_value(message: str) -> str:
  """`flag --NAME=VALUE: …` in plain words."""
  message = _last_error(message)
  found = re.match(r"flag (--([\w.]+)=.*?): (.*)", message)
  if not found:
    return message
  flag, name, problem = found.groups()
  meant = [words for pattern, words in EXPECTED if re.match(rf"\W*{pattern}", problem)]
  return f"{flag}: {meant[0].format(name='--' + name) if meant else problem}"


def _unknown_key(message: str, argv: list[str]) -> str:
  words = " ".join(message.replace("\\n", " ").replace("\\", "").split())
  unknown = re.search(r"""['"]+(\w+)['"]""", words)
  near = re.search(r'Did you mean "(\w+)"', words)
  given = [arg for arg in argv if unknown and re.match(rf"--config\.([\w.]*\.)?{unknown[1]}\b", arg)]
  hint = f"did you mean {near[1]}?" if near else "the config file lists those there are"
  return f"{given[0]} is not a setting of this config; {hint}" if given else words


def _last_error(message: str) -> str:
  """The last `SomethingError: …` line of a message that carries a whole traceback, else the message as one line."""
  raised = re.findall(r"^\s*(?:\w+\.)*\w+Error: (.+)$", message, re.MULTILINE)
  return raised[-1] if raised else " ".join(message.split())


def _stop(message: str, code: int = 2):
  print(f"error: {' '.join(message.split())}", file=sys.stderr)
  sys.exit(code)
