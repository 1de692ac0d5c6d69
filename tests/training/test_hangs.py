"""Who hangs: judged from what processes say, then seen on real threads and processes."""

import contextlib
import re
import subprocess
import sys
import threading
import time

import pytest

from omniimage.training import hangs
from omniimage.training.accounts import Accounts
from omniimage.training.hangs import FLOOR, LATER, SILENT, Hangs, Seen, allowed, hanging, too_long
from omniimage.training.log_file import LogFile
from tests.process_of_a_run import Run

LIMITS = allowed([0.5] * 64)


def seen(*processes: tuple) -> dict[int, Seen]:
  """Of (kind, step, seconds) of each process, and for how long it has been silent."""
  return {
    index: Seen(kind, step, seconds=seconds, silent=sum(silent))
    for index, (kind, step, seconds, *silent) in enumerate(processes)
  }


@pytest.mark.parametrize(
  "late",
  [
    ("input", 7, 30.0),
    ("steps", 6, 30.0),  # the others have been handed step 7
    ("checkpoint", 6, 60.0),
  ],
)
def test_of_those_that_wait_for_one_another_the_one_farthest_behind_hangs(late):
  assert hanging(seen(("steps", 7, 31.0), late, ("steps", 7, 31.0)), LIMITS) == [1]


def test_a_collective_that_never_comes_is_one_in_which_all_hang():
  assert hanging(seen(("steps", 7, 31.0), ("steps", 7, 30.0)), LIMITS) == [0, 1]
  assert hanging(seen(("steps", 7, 19.0), ("steps", 7, 18.0)), LIMITS) == []


def test_nobody_hangs_while_one_compiles_begins_or_still_saves():
  for kind, step in (("compile", 7), ("start", 0), ("evaluation", 6), ("checkpoint", 6)):
    assert hanging(seen(("steps", 7, 45.0), (kind, step, 45.0)), LIMITS) == []


def test_who_says_nothing_is_named_before_those_that_wait_for_it_whatever_it_did():
  for kind in ("steps", "compile", "evaluation"):
    assert hanging(seen(("steps", 7, 16.0), (kind, 7, 16.0, 16.0)), LIMITS) == [1]
  assert SILENT < FLOOR and hanging(seen(("steps", 7, 19.0), (hangs.ENDED, 7, 99.0, 99.0)), LIMITS) == []


def test_a_step_may_take_ten_times_the_median_of_the_last_and_never_less_than_the_floor():
  assert allowed([0.1, 0.1, 3.0, 3.0, 9.0])["steps"] == 30.0
  assert allowed([0.1] * 64) == {"steps": FLOOR, "input": FLOOR, "checkpoint": LATER}
  assert allowed([0.1]) == {"steps": LATER, "input": LATER, "checkpoint": LATER}, "one step is no median"


def test_a_run_ends_where_a_process_hangs_as_long_as_it_is_told_or_is_silent_until_jax_would_abort_it():
  assert too_long(Seen("input", 7, seconds=61.0), 60) and not too_long(Seen("input", 7, seconds=59.0), 60)
  assert not too_long(Seen("input", 7, seconds=1e6), 0)
  assert too_long(Seen("steps", 7, silent=61.0), 0) and not too_long(Seen("steps", 7, silent=59.0), 0)
  assert too_long(Seen("steps", 7, silent=31.0), 30)
  assert not too_long(Seen("compile", 7, seconds=1e6, silent=1e6), 30), "C code that compiles may hold the interpreter"


@pytest.fixture
def sooner(monkeypatch):
  for name, seconds in (("BEAT", 0.05), ("FLOOR", 0.4), ("LATER", 0.4)):
    monkeypatch.setattr(hangs, name, seconds)


def until(condition, seconds: float = 10.0):
  end = time.monotonic() + seconds
  while not condition() and time.monotonic() < end:
    time.sleep(0.02)
  assert condition()


def test_what_hangs_is_named_once_with_its_stacks_in_the_log_and_so_is_its_end(sooner, tmp_path, caplog):
  accounts, log, going_on = Accounts(), LogFile(tmp_path / "logs" / "0.log"), threading.Event()
  with contextlib.closing(log), contextlib.closing(Hangs(accounts, log, 0)):
    accounts.turn_to("input", 7)

    def stuck_in_a_read():
      going_on.wait()

    reader = threading.Thread(target=stuck_in_a_read)
    reader.start()
    until(lambda: "stuck_in_a_read" in log.path.read_text())
    time.sleep(0.3)
    accounts.turn_to("steps")
    until(lambda: "goes on" in caplog.text)
    going_on.set()
    reader.join()
  said = [record.getMessage() for record in caplog.records]
  assert len(said) == 2, said
  assert re.fullmatch(rf"process 0 \(\S+\) hangs in the input of step 7 since .*; its stacks: {log.path}", said[0])
  assert re.fullmatch(r"process 0 \(\S+\) goes on, after \d+ s", said[1])
  assert "thread MainThread" in log.path.read_text()


def test_a_step_that_goes_on_is_not_named(sooner, tmp_path, caplog):
  accounts, log = Accounts(), LogFile(tmp_path / "logs" / "0.log")
  with contextlib.closing(log), contextlib.closing(Hangs(accounts, log, 0)):
    for step in range(1, 12):
      accounts.turn_to("steps", step)
      time.sleep(0.1)
    accounts.turn_to("compile")
    time.sleep(0.8)
  assert not caplog.records


def test_a_process_that_was_stopped_does_not_take_that_time_for_its_own(sooner, tmp_path, caplog, monkeypatch):
  """As a laptop that slept."""
  accounts, log, now = Accounts(), LogFile(tmp_path / "logs" / "0.log"), time.monotonic
  asleep = 0.0
  monkeypatch.setattr(hangs.time, "monotonic", lambda: now() + asleep)
  with contextlib.closing(log), contextlib.closing(Hangs(accounts, log, 0)):
    accounts.turn_to("steps", 3)
    time.sleep(0.1)
    asleep = 1000.0
    time.sleep(0.15)
  assert not caplog.records


def test_a_single_process_that_hangs_ends_with_exit_code_75_if_it_is_told_to(tmp_path):
  program = f"""
import time
from pathlib import Path
from omniimage.training import hangs
from omniimage.training.accounts import Accounts
from omniimage.training.log_file import LogFile
hangs.BEAT, hangs.LATER = 0.1, 0.5
accounts = Accounts()
watching = hangs.Hangs(accounts, LogFile(Path({str(tmp_path / "logs" / "0.log")!r})), 1)
accounts.turn_to("checkpoint", 4)
time.sleep(1000)
"""
  done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
  assert done.returncode == 75
  assert re.search(
    r"^error: this process hangs in the checkpoint of step 4 since .* the same command", done.stderr, re.M
  )


def test_code_in_c_that_holds_the_interpreter_leaves_its_stack_in_the_log(tmp_path):
  program = f"""
import ctypes, time
from pathlib import Path
from omniimage.training import hangs
from omniimage.training.accounts import Accounts
from omniimage.training.log_file import LogFile
hangs.BEAT, hangs.SILENT = 0.1, 0.5
watching = hangs.Hangs(Accounts(), LogFile(Path({str(tmp_path / "logs" / "0.log")!r})), 0)
def holds_the_interpreter():
  ctypes.PyDLL(None).sleep(2)
time.sleep(0.5)
holds_the_interpreter()
watching.close()
"""
  subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
  assert "in holds_the_interpreter" in (tmp_path / "logs" / "0.log").read_text()


@pytest.mark.parametrize(
  ("what", "where", "hung"),
  [("read", "the input of step 5", 1), ("busy", "step 5", 0)],  # the other has been handed step 6, and waits for it
)
def test_of_two_processes_the_one_that_hangs_is_named_by_both_and_both_end_if_they_are_told_to(what, where, hung):
  with Run(2, f"{what}={hung}@5", "end=5") as run:
    assert run.codes(90) == [75, 75], run.said()
    said, logged = run.said(), run.logged(hung)
  for text in said:
    assert re.search(rf"process {hung} \(\S+\) hangs in {where} since", text), text
    assert re.search(rf"^error: process {hung} \(\S+\) hangs in {where} since .* started again", text, re.MULTILINE)
    assert f"process {1 - hung} (" not in text, text
  assert ("stuck_in_a_read" if what == "read" else "in happen") in logged


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_process_that_is_stopped_is_named_by_the_other_which_ends_before_jax_aborts_it(stopped):
  with Run(2, f"stop={stopped}@5", "end=0") as run:
    code, ended = run.processes[1 - stopped].wait(90), time.time()
    said = run.said()
  assert code == 75, said
  assert ended - float(re.search(r"stopped at (\S+)", said[stopped])[1]) < 15
  for begin in ("", "^error: "):
    named = rf"{begin}process {stopped} \(\S+\) has said nothing since .*, then in .*step \d"
    assert re.search(named, said[1 - stopped], re.MULTILINE), said[1 - stopped]


def test_a_process_that_was_slow_is_named_and_the_run_goes_on_to_its_end():
  with Run(2, "slow=1@7", "steps=90", "end=0") as run:
    assert run.codes(90) == [0, 0], run.said()
    said = run.said()
  for text in said:
    assert re.search(r"process 1 \(\S+\) hangs in the input of step 7 since .*; a step takes", text), text
    assert re.search(r"process 1 \(\S+\) goes on, after \d+ s", text), text
