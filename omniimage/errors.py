"""Errors that a person can mend. The command line prints them as one line, without a traceback."""


class UserError(ValueError):
  """What was given, what was expected and what to do, in one line."""

  exit_code = 2  # of a command that ends with it


class CheckpointError(UserError):
  """A checkpoint that cannot be written or read. The message is one line: what, where, what to do."""


class SettingsError(UserError):
  """A config that cannot work. The message is one line: what was given, what was expected, what to change."""


def require(condition: bool, message: str):
  """SettingsError with this message unless the condition holds."""
  if not condition:
    raise SettingsError(message)
