"""A command in this process, quicker than in one of its own."""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from unittest import mock

from absl.testing import flagsaver

import launch
from launch import cli


def call(command: str, *args):
  """Runs `python -m launch.COMMAND args` up to its end."""
  with _command(command, args) as (main, argv):
    cli.mendable(main)(cli.parse(argv))


def parse(command: str, *args):
  """Reads its flags alone."""
  with _command(command, args) as (_, argv):
    cli.parse(argv)


@contextlib.contextmanager
def _command(command: str, args) -> Iterator[tuple[cli.Main, list[str]]]:
  """What it does and its command line; forgets its flags: the next command defines its own, and what was given here is
  not given to the next one or to whoever has imported them."""
  argv, module = [command, *map(str, args)], f"launch.{command}"
  with mock.patch.object(sys, "argv", argv), mock.patch.dict(os.environ), flagsaver.flagsaver():
    try:
      yield importlib.import_module(module).main, argv
    finally:
      for defined in (module, "launch.sampling_flags", "launch.weights"):
        sys.modules.pop(defined, None)
        vars(launch).pop(defined.removeprefix("launch."), None)
