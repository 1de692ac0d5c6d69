"""What to type to run a command, for messages that say what to do next."""

from pathlib import Path

# A checkout has the commands beside the package, an installation has them in it.
IS_INSTALLED = (Path(__file__).parent / "launch").is_dir()


def command(name: str) -> str:
  """ "train" → "python -m launch.train"."""
  return f"omniimage {name}" if IS_INSTALLED else f"python -m launch.{name}"
