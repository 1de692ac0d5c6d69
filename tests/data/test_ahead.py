"""Reading ahead in processes: the same batches, what is found bad comes home, and no process outlives the run.

Each process starts an interpreter and imports what reads, which takes a second or two; so there are few of these tests.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from omniimage.data.ahead import read_ahead
from tests.data.test_batches import ROWS, Sketches, assert_equal, batches_of

ROOT = Path(__file__).parents[2]

READER = """
import multiprocessing, sys, time
from omniimage.data.ahead import read_ahead

def read(i):
  time.sleep(0.05)
  return i

if __name__ == "__main__":
  for i in read_ahead(read, 0, 10_000, workers=2):
    print(i, *(child.pid for child in multiprocessing.active_children()), flush=True)
"""


def test_processes_read_the_batches_that_threads_do_and_say_what_is_bad(tmp_path):
  """A bucket, a slice of the rows and a start of its own."""
  source, own = Sketches(n=40, broken=(5, 9)), range(2, 5)
  expected, batches = batches_of(source), batches_of(source, workers=2, max_bad_records=1.0)
  batches.keep_list(tmp_path / "bad_records.jsonl")
  read = list(batches.iterate(3, 12, ROWS, own))
  assert [index for index, _ in read] == list(range(3, 12))
  for index, batch in read:
    assert_equal(batch, expected.batch(index, ROWS, own))
  assert batches.bad_records == expected.bad_records == {5, 9}
  assert batches.statistics(3, ROWS) == expected.statistics(3, ROWS), "the share of bad records too"
  assert len((tmp_path / "bad_records.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_what_reading_raises_reaches_the_run(workers):
  with pytest.raises(ZeroDivisionError):
    list(read_ahead(ONE_OVER, 0, 3, workers=workers))


class _OneOver:
  def __call__(self, i: int) -> float:
    return 1 / (2 - int(i))


ONE_OVER = _OneOver()


def test_workers_outlive_the_signals_that_the_run_handles_and_end_with_it_however_it_ends(tmp_path):
  script = tmp_path / "reads.py"
  script.write_text(READER)
  run = subprocess.Popen(
    [sys.executable, script], stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
  )
  try:
    for _ in range(4):  # two of each worker, so that both have begun
      _, *workers = map(int, run.stdout.readline().split())
    assert len(workers) == 2
    for worker in workers:
      os.kill(worker, signal.SIGINT)
      os.kill(worker, signal.SIGTERM)
    last = max(int(run.stdout.readline().split()[0]) for _ in range(12))
    assert last >= 15, "more than was read ahead"
    run.kill()
    run.wait()
    waited = time.monotonic() + 20
    while any(map(_alive, workers)) and time.monotonic() < waited:
      time.sleep(0.1)
    assert not any(map(_alive, workers))
  finally:
    run.kill()
    run.stdout.close()


def _alive(process: int) -> bool:
  try:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
  except OSError:
    return False
