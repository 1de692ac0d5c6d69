"""Benchmarks as modules, without their flags, which would stand in the way of the commands'."""

import importlib
from types import ModuleType

from absl import flags


def load(name: str) -> ModuleType:
  others = set(flags.FLAGS)
  module = importlib.import_module(f"benchmarks.{name}")
  for flag in set(flags.FLAGS) - others:
    delattr(flags.FLAGS, flag)
  return module
