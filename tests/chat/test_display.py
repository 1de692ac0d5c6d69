"""What a terminal shows and a script reads: progress and colors are for terminals alone."""

import io

import numpy as np
import pytest

from omniimage.chat import half_blocks
from omniimage.chat.display import Display
from tests.chat.fake_chat import image, text


class Terminal(io.StringIO):
  encoding = "UTF-8"

  def isatty(self) -> bool:
    return True


def test_a_cell_is_two_pixels_of_true_color():
  pixels = np.array([[[255, 0, 0]], [[0, 0, 255]], [[1, 2, 3]]], np.uint8)
  assert half_blocks.lines(pixels) == ["\x1b[38;2;255;0;0;48;2;0;0;255m▀\x1b[0m", "\x1b[38;2;1;2;3;49m▀\x1b[0m"]


@pytest.mark.parametrize("height, width, shown", [(16, 16, (8, 16)), (64, 256, (6, 48)), (512, 128, (24, 12))])
def test_a_picture_is_reduced_to_fit_and_never_enlarged(height, width, shown):
  lines = half_blocks.lines(np.zeros((height, width, 3), np.uint8))
  assert (len(lines), lines[0].count("▀")) == shown


@pytest.mark.parametrize("stream, environment, can", [
  (Terminal, {"COLORTERM": "truecolor"}, True),
  (Terminal, {"COLORTERM": "24bit"}, True),
  (Terminal, {"COLORTERM": "truecolor", "NO_COLOR": "1"}, False),
  (Terminal, {"COLORTERM": "truecolor", "NO_COLOR": ""}, True),
  (Terminal, {}, False),
  (io.StringIO, {"COLORTERM": "truecolor"}, False),
])  # fmt: skip
def test_colors_are_shown_where_a_terminal_has_them_and_they_are_wanted(stream, environment, can):
  assert half_blocks.can_show(stream(), environment) == can


def test_a_terminal_says_how_far_a_picture_is_and_wipes_it_out(tmp_path, monkeypatch):
  monkeypatch.delenv("TERM", raising=False)
  out, status = Terminal(), Terminal()
  display = Display(out, status)
  for event in text("hm", reason="image") + image(1):
    display.show(event)
  display.end()
  told = [part for part in status.getvalue().split("\r\x1b[K") if part]
  assert told == ["codes 2/4", "codes 4/4", "rows of pixels 8/16", "rows of pixels 16/16"]
  assert out.getvalue() == "hm\n" and status.getvalue().endswith("\r\x1b[K")


def test_a_script_reads_the_answer_alone(tmp_path):
  out, status = io.StringIO(), io.StringIO()
  display = Display(out, status)
  for event in text("a star") + image(1):
    display.show(event)
  display.picture(np.zeros((2, 2, 3), np.uint8), tmp_path / "001.png")
  display.note("session: here")
  assert out.getvalue() == f"a star\npicture: {tmp_path}/001.png\n" and status.getvalue() == "session: here\n"


def test_pictures_are_shown_above_the_line_of_their_file(tmp_path):
  out = Terminal()
  Display(out, io.StringIO(), pictures=True).picture(np.zeros((4, 2, 3), np.uint8), tmp_path / "001.png")
  lines = out.getvalue().splitlines()
  assert [line.count("▀") for line in lines] == [2, 2, 0] and lines[2].endswith("001.png")
