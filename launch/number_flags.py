"""Flags that are numbers of a range, as settings are."""

from absl import flags

from omniimage.ranges import Range

flags.disclaim_key_flags()  # --help lists them under the command that defines them


class _InRange:
  """A parser of absl's that takes the numbers of a range alone: neither NaN nor an infinity is one."""

  def __init__(self, allowed: Range):
    super().__init__()
    self._allowed = allowed
    self.syntactic_help = f"{self.syntactic_help}, {allowed}"

  def is_outside_bounds(self, value: float) -> bool:
    if value not in self._allowed:
      raise ValueError(f"must be {self._allowed}")
    return False


class _Whole(_InRange, flags.IntegerParser):
  pass


class _Real(_InRange, flags.FloatParser):
  pass


def whole(name: str, default: int | None, help_text: str, allowed: Range) -> flags.FlagHolder[int]:
  """Defines a flag that takes whole numbers of a range."""
  return flags.DEFINE(_Whole(allowed), name, default, help_text, serializer=flags.ArgumentSerializer())


def real(name: str, default: float | None, help_text: str, allowed: Range) -> flags.FlagHolder[float]:
  """Defines a flag that takes numbers of a range."""
  return flags.DEFINE(_Real(allowed), name, default, help_text, serializer=flags.ArgumentSerializer())
