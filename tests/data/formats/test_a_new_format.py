"""As docs/extending.md says: a format is a class and one row of a table."""

from omniimage.data import formats
from omniimage.data.formats import Kind
from omniimage.data.formats.format import Row, Unit
from omniimage.data.records import captioned
from tests.data.formats.made import captions, picture, read


class Countdown:
  """A picture of every number down from one."""

  def __init__(self, source, given):
    self._first = int(source.removeprefix("countdown:"))

  def found(self):
    return f"the numbers from {self._first}"

  def units(self):
    return [Unit("all", None, self._first)]

  def rows(self, unit):
    for number in range(self._first, 0, -1):
      yield Row(str(number), captioned(str(number), [f"number {number}"], picture(number)))

  def fingerprint(self):
    return str(self._first)


def test_a_new_format_is_one_row_of_the_table(monkeypatch):
  row = Kind(Countdown, lambda survey: survey.source.startswith("countdown:"))
  monkeypatch.setitem(formats.FORMATS, "countdown", row)
  assert captions(read("countdown:2")) == {"2": ("number 2",), "1": ("number 1",)}
