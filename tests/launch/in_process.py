"""A command in this process, quicker than in one of its own."""

import importlib
import os
import sys
from unittest import mock

from absl.testing import flagsaver

import launch
from launch import cli


def call(command: str, *args):
  """Runs `python -m launch.COMMAND args` up to its end, and forgets its flags: the next command defines its own, and
  what was given here is not given to the next one or to whoever has imported them."""
  argv, module = [command, *map(str, args)], f"launch.{command}"
  with mock.patch.object(sys, "argv", argv), mock.patch.dict(os.environ), flagsaver.flagsaver():
    try:
      main = importlib.import_module(module).main
      cli.mendable(main)(cli.parse(argv))
    finally:
      for defined in (module, "launch.sampling_flags"):
        sys.modules.pop(defined, None)
        vars(launch).pop(defined.removeprefix("launch."), None)
