"""What a person, or a script, sees of a conversation.

On `out` stands the answer: its texts as they are written, and a line for the file of each picture. On `status` stands
all else, so that what a script reads is the answer alone: notes, errors, and on a terminal one line that says how far a
picture is.
"""

import contextlib
import os
from pathlib import Path
from typing import TextIO

import numpy as np

from omniimage.chat import half_blocks
from omniimage.sampling.events import Chunk, Codes, Event, Text, TextEnd

CLEAR = "\r\x1b[K"


class Display:
  def __init__(self, out: TextIO, status: TextIO, pictures: bool = False):
    """`pictures`: show them in colored cells, too."""
    self._out, self._status, self._pictures = out, status, pictures
    self._has_progress = status.isatty() and os.environ.get("TERM") != "dumb"
    self._inside_line = self._progress = False

  def show(self, event: Event):
    """An event of an answer; the file of a finished picture is told by `picture`."""
    match event:
      case Text(text):
        self._clear()
        self._write(legible(text))
        self._inside_line = True
      case TextEnd():
        self._end_line()
      case Codes(first, codes, (h, w)):
        self._tell(f"codes {first + len(codes)}/{h * w}")
      case Chunk(pixels, (top, _), (height, _)):
        self._tell(f"rows of pixels {top + len(pixels)}/{height}")

  def picture(self, pixels: np.ndarray, path: Path):
    """A finished picture (H, W, 3) uint8, which is in a file."""
    self._clear()
    self._end_line()
    if self._pictures:
      self._write("".join(f"{line}\n" for line in half_blocks.lines(pixels)))
    self._write(f"picture: {near(path)}\n")

  def note(self, text: str):
    """A line that is not of the answer."""
    self._clear()
    self._end_line()
    self._status.write(f"{legible(text)}\n")
    self._status.flush()

  def end(self):
    """The answer has ended, wherever."""
    self._clear()
    self._end_line()

  def _tell(self, progress: str):
    if self._has_progress:
      self._end_line()
      self._status.write(f"{CLEAR}{progress}")
      self._status.flush()
      self._progress = True

  def _clear(self):
    if self._progress:
      self._status.write(CLEAR)
      self._status.flush()
      self._progress = False

  def _end_line(self):
    if self._inside_line:
      self._write("\n")
      self._inside_line = False

  def _write(self, text: str):
    self._out.write(text)
    self._out.flush()


def legible(text: str) -> str:
  """The text without what would command the terminal."""
  return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def near(path: Path) -> Path:
  """A path as a person would type it, from the current folder where it lies below that."""
  with contextlib.suppress(ValueError, OSError):
    return path.relative_to(Path.cwd())
  return path
