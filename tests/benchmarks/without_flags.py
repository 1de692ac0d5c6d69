"""Benchmarks as modules, without their flags, which would stand in the way of the commands'."""

import importlib
from types import ModuleType

from absl import flags

OURS = ("benchmarks.", "launch.")


def load(name: str) -> ModuleType:
  others = set(flags.FLAGS)
  module = importlib.import_module(f"benchmarks.{name}")
  for flag in set(flags.FLAGS) - others:
    if flags.FLAGS.find_module_defining_flag(flag).startswith(OURS):  # libraries, imported here first, need theirs
      delattr(flags.FLAGS, flag)
  return module
