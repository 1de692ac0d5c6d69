"""Errors that a person can mend. The command line prints them as one line, without a traceback."""


class UserError(ValueError):
  """What was given, what was expected and what to do, in one line."""
