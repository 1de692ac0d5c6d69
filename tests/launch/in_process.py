"""A command in this process, quicker than in one of its own."""

import importlib
import os
import sys
from unittest import mock

from absl import flags

import launch
from launch import cli


def call(command: str, *args):
  """Runs `python -m launch.COMMAND args` up to its end, and forgets its flags: the next command defines its own."""
  argv, module, others = [command, *map(str, args)], f"launch.{command}", set(flags.FLAGS)
  with mock.patch.object(sys, "argv", argv), mock.patch.dict(os.environ):
    try:
      main = importlib.import_module(module).main
      cli.mendable(main)(cli.parse(argv))
    finally:
      for name in set(flags.FLAGS) - others:
        delattr(flags.FLAGS, name)
      for defined in (module, "launch.sampling_flags"):
        sys.modules.pop(defined, None)
        vars(launch).pop(defined.removeprefix("launch."), None)
