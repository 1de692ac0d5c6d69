"""The first records, shown before the long work begins: a wrong column is seen in the first second."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from omniimage.data import images
from omniimage.data.formats.format import Format, Unit
from omniimage.data.records import Record
from omniimage.errors import UserError
from omniimage.prepare.pages import first_pairs, one_line, words
from omniimage.prepare.parts import kind, rows_of

PAIRS = 12  # records on the page
LINES = 3  # of them on the terminal
ROWS = 1000  # that are looked at; if they have no caption, none will
TEXT = 160  # characters of a caption on a line

Say = Callable[[str], None]


def show(source: Format, units: Sequence[Unit], page: Path, say: Say):
  """Writes the page and says the first lines. UserError if none of the first rows has a caption."""
  found, problems = first_records(source, units)
  if not found and problems:
    (problem, count), seen = problems.most_common(1)[0], problems.total()
    if problem == "no caption" and (seen == count or seen >= ROWS):
      raise UserError(
        f"none of the first {seen:,} rows has a caption; name the right --caption_column, or see what the source needs "
        "in docs/own_images.md"
      )
  for record in found[:LINES]:
    text = one_line(words(record))
    say(f"{one_line(record.key)}: {text if len(text) <= TEXT else text[:TEXT] + '…'}")
  if found:
    first_pairs(page, found)
    say(f"the first {len(found)}, to look at: {page}")


def first_records(source: Format, units: Sequence[Unit]) -> tuple[list[Record], Counter]:
  """(records whose pictures are whole, how many rows had which kind of problem) among the first rows."""
  found, problems = [], Counter()
  for unit in units:
    for row in rows_of(source, unit):
      if row.record is not None and _is_whole(row.record):
        found.append(row.record)
      else:
        problems[kind(row.problem) or "no picture"] += 1
      if len(found) == PAIRS or len(found) + problems.total() >= ROWS:
        return found, problems
  return found, problems


def _is_whole(record: Record) -> bool:
  try:
    for image in record.images:
      images.inspect(image)
  except images.BadImage:
    return False
  return True
