"""The commands."""

import sys

from omniimage import signals

if sys.argv[:1] == ["-m"]:  # python -m launch.COMMAND, which Python is still looking for
  signals.begin()
