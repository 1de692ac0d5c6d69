"""The file that a command writes a picture to, checked before anything is drawn."""

from pathlib import Path

from omniimage.errors import UserError


def check_out(path: Path, kind: str = "PNG"):
  """UserError where no such file could be written."""
  if path.suffix.lower() != f".{kind.lower()}":
    raise UserError(f"--out={path} must be the name of a {kind} file, as in --out=star.{kind.lower()}")
  if not path.parent.is_dir():
    raise UserError(f"--out={path}: its folder does not exist; make it first")
  try:
    existed = path.exists()
    path.open("ab").close()
    if not existed:
      path.unlink()
  except OSError as error:
    raise UserError(f"--out={path} cannot be written: {error.strerror}; choose another file") from None
