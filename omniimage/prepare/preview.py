"""The first records, shown before the long work begins: a wrong column is seen in the first second."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from omniimage.data import images
from omniimage.data.formats.format import Format, Row, Unit
from omniimage.data.records import Record
from omniimage.errors import UserError
from omniimage.prepare.pages import first_pairs, one_line, words
from omniimage.prepare.parts import kind, rows_of

PAIRS = 12  # records on the page
LINES = 3  # of them on the terminal
ROWS, ROWS_OF_A_UNIT = 1000, 250  # that are looked at; if none of them gives a record, something is wrong
TEXT = 160  # characters of a caption on a line

Say = Callable[[str], None]


def show(source: Format, units: Sequence[Unit], page: Path, say: Say):
  """Writes the page and says the first lines. UserError if no row is usable, of all or of so many."""
  found, problems = first_records(source, units)
  if not found:
    raise UserError(_nothing(problems))
  for record in found[:LINES]:
    text = one_line(words(record))
    say(f"{one_line(record.key)}: {text if len(text) <= TEXT else text[:TEXT] + '…'}")
  first_pairs(page, found)
  say(f"the first {len(found)}, to look at: {page}")


def first_records(source: Format, units: Sequence[Unit]) -> tuple[list[Record], list[Row]]:
  """(records whose pictures are whole, rows that give none) among the first rows."""
  found, problems = [], []
  for unit in units:
    for row in itertools.islice(rows_of(source, unit), ROWS_OF_A_UNIT):
      if problem := _problem(row):
        problems.append(Row(row.key, problem=problem))
      else:
        found.append(row.record)
      if len(found) == PAIRS or len(found) + len(problems) == ROWS:
        return found, problems
  return found, problems


def _nothing(problems: Sequence[Row]) -> str:
  if not problems:
    return "the source holds no record: it has no rows; give another --source"
  (reason, count), first = Counter(kind(row.problem) for row in problems).most_common(1)[0], problems[0]
  return (
    f"the source holds no record in its first {len(problems):,} rows, {count:,} of them for one reason: {reason}; "
    f"{one_line(first.key)}: {one_line(first.problem)}; mend the source, or name other columns"
  )


def _problem(row: Row) -> str:
  """Why it gives no record; empty if it does."""
  if row.record is None:
    return row.problem or "no record"
  try:
    for image in row.record.images:
      images.inspect(image)
  except images.BadImage as problem:
    return str(problem)
  return ""
