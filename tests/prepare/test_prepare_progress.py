"""How far it is, where nobody watches a terminal."""

import pytest

from omniimage.prepare import progress as module
from omniimage.prepare.progress import Progress


@pytest.fixture
def clock(monkeypatch):
  """Seconds, that the test moves."""
  now = [0.0]
  monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
  monkeypatch.setattr(module.sys.stderr, "isatty", lambda: False, raising=False)
  return now


def test_the_time_left_is_that_of_what_is_left_and_not_of_what_was_there_before(clock, capsys):
  with Progress("reading", rows=1000, done_rows=600, tasks=10, done_tasks=6) as progress:
    clock[0] = 10.0
    progress.tell(50)
    clock[0] = 20.0
    progress.tell(50)
  assert capsys.readouterr().err == "reading 700/1,000 rows: 60 s left\n"


def test_where_rows_are_not_known_it_counts_the_parts_and_tells_the_rows(clock, capsys):
  with Progress("reading", rows=0, done_rows=0, tasks=4, done_tasks=0) as progress:
    clock[0] = 16.0
    progress.tell(5000)
    progress.done(None)
    clock[0] = 32.0
    progress.done(None)
  assert capsys.readouterr().err == "reading 0/4 parts: 5,000 rows\nreading 2/4 parts: 32 s left\n"
