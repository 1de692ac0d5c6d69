"""How far it is, and the time that is left: a bar, or a line now and then where nobody watches a terminal."""

import sys
import time

from tqdm import tqdm

SECONDS = 15  # between lines without a terminal


class Progress:
  """Counts rows, or tasks where it is not known how many rows there are."""

  def __init__(self, what: str, rows: int, done_rows: int, tasks: int, done_tasks: int):
    self._by_rows = rows > 0
    total, initial, unit = (rows, done_rows, "row") if self._by_rows else (tasks, done_tasks, "part")
    self._watched = sys.stderr.isatty()
    self._bar = tqdm(
      total=total, initial=initial, desc=what, unit=unit, dynamic_ncols=True, mininterval=0.5, disable=not self._watched
    )
    self._what, self._unit, self._total = what, unit, total
    self._first = self._done = initial
    self._rows = done_rows
    self._began = self._printed = time.monotonic()

  def tell(self, rows: int):
    self._rows += rows
    self._advance(rows if self._by_rows else 0)

  def done(self, task: object):
    self._advance(0 if self._by_rows else 1)

  def _advance(self, by: int):
    self._done += by
    self._bar.update(by)
    now = time.monotonic()
    if not self._by_rows:
      self._bar.set_postfix_str(f"{self._rows:,} rows", refresh=False)
    if not self._watched and now - self._printed > SECONDS:
      self._printed = now
      done = self._done - self._first
      left = f"{(now - self._began) / done * (self._total - self._done):.0f} s left" if done else f"{self._rows:,} rows"
      print(f"{self._what} {self._done:,}/{self._total:,} {self._unit}s: {left}", file=sys.stderr, flush=True)

  def __enter__(self) -> "Progress":
    return self

  def __exit__(self, *_):
    self._bar.close()
