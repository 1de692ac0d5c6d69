"""The --config flag. What is wrong with a config file is one line that names the file and the line in it."""

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

from absl import flags
from ml_collections import ConfigDict, FrozenConfigDict, config_flags

from omniimage.errors import UserError

NO_CONFIGS = ("__init__", "common")

flags.disclaim_key_flags()  # --help lists it under the command that defines it

# The package of the configs that are there, beside this one: what a file imports by `from . import scenes`, wherever it
# lies itself.
CONFIGS = ".".join([*__package__.split(".")[:-1], "configs"])
NAME = f"{CONFIGS}.config_file"  # of the file as a module


def define(help_text: str) -> flags.FlagHolder[ConfigDict]:
  """Defines --config=FILE[:VARIANT] and its overrides, --config.KEY=VALUE."""
  holder = config_flags.DEFINE_config_file("config", None, help_text)
  flags.FLAGS["config"].parser = _Parser()  # ml_collections' own leaves most errors as tracebacks
  return holder


class _Parser(flags.ArgumentParser):
  syntactic_help = "a Python file with a function get_config, and what to call it with: FILE[:VARIANT]"

  def parse(self, given: str) -> ConfigDict:
    return load(given)

  def flag_type(self) -> str:
    return "config object"


def load(given: str) -> ConfigDict:
  """What `get_config` of FILE[:VARIANT] returns, locked; `configs/NAME.py` or `NAME` is the package's own config where
  there is no such file. UserError where anything is wrong with the file."""
  name, *variant = given.split(":", 1)
  path = _found(name)
  try:
    get_config = getattr(_module(path), "get_config", None)
    if not callable(get_config):
      raise UserError(f"{path} has no function get_config; it must have one, which returns a ConfigDict")
    _check_call(get_config, variant, path)
    config = get_config(*variant)
    if isinstance(config, ConfigDict) and not isinstance(config, FrozenConfigDict):
      return config.lock()
  except UserError:
    raise
  except (Exception, SystemExit) as error:
    raise UserError(f"{_place(error, path)}: {_what(error)}") from None
  returned = "None; is a return missing?" if config is None else f"{type(config).__name__}, not a ConfigDict"
  raise UserError(f"{_line_of(get_config, path)}: get_config returned {returned}")


def _found(name: str) -> Path:
  path = Path(os.path.expanduser(name))  # a shell leaves the ~ of --config=~/… to us
  if path.is_file():
    return path
  (folder,) = importlib.import_module(CONFIGS).__path__
  there = {config.stem: config for config in sorted(Path(folder).glob("*.py")) if config.stem not in NO_CONFIGS}
  if path.parent in (Path(), Path("configs")) and path.name.removesuffix(".py") in there:
    return there[path.name.removesuffix(".py")]
  raise UserError(f"there is no such file; give one, or one of configs/{{{','.join(there)}}}.py")


def _module(path: Path) -> ModuleType:
  spec = importlib.util.spec_from_loader(NAME, SourceFileLoader(NAME, str(path)))
  module = sys.modules[NAME] = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _check_call(get_config, variant: list[str], path: Path):
  """Calling it with what it does not take would be a TypeError that no line of the file has raised."""
  try:
    inspect.signature(get_config).bind(*variant)
  except TypeError:
    problem = f"takes no variant, and {variant[0]!r} is given" if variant else "cannot be called without a variant"
    raise UserError(f"{_line_of(get_config, path)}: get_config {problem}") from None


def _line_of(function, path: Path) -> str:
  code = getattr(inspect.unwrap(function), "__code__", None)
  return f"{path}, line {code.co_firstlineno}" if code else str(path)


def _place(error: BaseException, path: Path) -> str:
  """File and line: of the text that is no Python, or of the last call in the file or one beside it."""
  if isinstance(error, SyntaxError) and error.filename:
    return f"{error.filename}, line {error.lineno}"
  frames = traceback.extract_tb(error.__traceback__)
  beside = [frame for frame in frames if Path(frame.filename).resolve().parent == path.resolve().parent]
  return f"{beside[-1].filename}, line {beside[-1].lineno}" if beside else str(path)


def _what(error: BaseException) -> str:
  what = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
  return f"{type(error).__name__}: {what}" if what else type(error).__name__
