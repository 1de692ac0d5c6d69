"""Tasks in processes: each is done, and what becomes of one that is not is said."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from omniimage.errors import UserError
from omniimage.prepare import pool


@dataclass(frozen=True)
class Sum:
  """Adds two numbers, or comes to harm."""

  name: str
  numbers: tuple[int, int] = (1, 2)
  harm: str = ""


def work(task: Sum, tell):
  match task.harm:
    case "mistake":
      raise UserError(f"{task.name} cannot be read; mend it")
    case "bug":
      raise KeyError("the bug")
    case "memory":
      raise MemoryError
    case "exit":
      os._exit(3)
    case "":
      tell(sum(task.numbers))
    case signal_name:
      os.kill(os.getpid(), signal.Signals[signal_name])
      time.sleep(60)


def run(*tasks, workers=2) -> tuple[int, list[str]]:
  """(the sum of all that was told, the names of what was done)."""
  told, done = [], []
  pool.run(work, tasks, workers, told.append, lambda task: done.append(task.name))
  return sum(told), done


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_every_task_is_done_once_whatever_the_number_of_processes(workers):
  tasks = [Sum(str(i), (i, 0)) for i in range(5)]
  told, done = run(*tasks, workers=workers)
  assert told == 10 and sorted(done) == list("01234")


def test_nothing_to_do_is_done():
  assert run() == (0, [])


@pytest.mark.parametrize(
  ("harm", "said"),
  [
    ("SIGKILL", "killed.*memory.*--workers"),
    ("SIGSEGV", "SIGSEGV"),
    ("exit", "code 3"),
    ("memory", "memory.*--workers"),
    ("mistake", "mend it"),
  ],
)
def test_a_process_that_ends_over_a_task_names_it(harm, said):
  with pytest.raises(UserError, match=said) as why:
    run(Sum("well"), Sum("shard-7.tar", harm=harm), Sum("later"))
  assert "shard-7.tar" in str(why.value) and "\n" not in str(why.value)


def test_a_bug_comes_with_its_traceback_and_the_task():
  with pytest.raises(RuntimeError, match=r"shard-7\.tar(.|\n)*KeyError: 'the bug'"):
    run(Sum("shard-7.tar", harm="bug"), Sum("well"))


CHILDREN = """
import sys, time
from pathlib import Path
from omniimage.prepare import pool
from tests.prepare.test_pool import Sleep, sleep
pool.run(sleep, [Sleep(sys.argv[1], str(i)) for i in range(2)], 2, print, print)
"""


@dataclass(frozen=True)
class Sleep:
  folder: str
  name: str


def sleep(task: Sleep, tell):
  Path(task.folder, f"{task.name}.pid").write_text(str(os.getpid()))
  time.sleep(60)


def test_workers_do_not_outlive_a_command_that_was_killed(tmp_path):
  process = subprocess.Popen([sys.executable, "-c", CHILDREN, str(tmp_path)])
  try:
    pids = [int(_soon(tmp_path / f"{i}.pid")) for i in range(2)]
  finally:
    process.kill()
    process.wait()
  end = time.monotonic() + 10
  while any(map(_lives, pids)):
    assert time.monotonic() < end
    time.sleep(0.02)


def _soon(path: Path) -> str:
  end = time.monotonic() + 30
  while not path.exists() or not path.read_text():
    assert time.monotonic() < end
    time.sleep(0.02)
  return path.read_text()


def _lives(pid: int) -> bool:
  try:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
  except FileNotFoundError:
    return False
