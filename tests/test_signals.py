"""A signal ends a command with one line and its exit code: while it imports, while it compiles, and twice in a row."""

import os
import signal
import subprocess
import sys
import time

import pytest

# What a command is in the midst of, from the moment when it says so.
IMPORTS = "import sys; sys.argv[0] = '-m'; import launch; print('now', flush=True); import jax, time; time.sleep(60)"
COMPILES = """
import ctypes
from omniimage import signals
signals.begin()
print("now", flush=True)
ctypes.CDLL(None).poll(None, 0, 60000)
import time
time.sleep(60)
"""
LENDS = """
import os, signal, time
from omniimage import signals
signals.SOON = 1.0
signals.begin()
theirs = []
ours = signal.signal(signal.SIGTERM, lambda *_: theirs.append("theirs"))
print("now", flush=True)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(0.5)
signal.signal(signal.SIGTERM, ours)
time.sleep(1.0)
print(*theirs)
"""
TRAINS = """
import contextlib, time
from launch import cli
from omniimage import signals
from omniimage.distributed import preemption

def main(argv):
  with contextlib.ExitStack() as stack:
    stack.callback(lambda: (print("closes", flush=True), time.sleep(0.4), print("closed", flush=True)))
    asked_to_stop = stack.enter_context(preemption.notice())
    asked_to_stop(1)
    print("now", flush=True)
    for step in range(2, 1000):
      time.sleep(0.05)
      if asked_to_stop(step):
        raise preemption.Preempted(step)

signals.begin()
cli.mendable(main)([])
"""


@pytest.fixture(autouse=True)
def interruptible():
  """Of a background process of a script SIGINT is ignored, and so it would be in the processes that it starts."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


def ended(program: str, *numbers: int, between: float = 0.0, after: str = "now") -> tuple[int, str, str]:
  """Exit code, stderr and stdout of a program that got these signals."""
  process = subprocess.Popen(
    [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
  )
  try:
    while process.stdout.readline().strip() != after:
      assert process.poll() is None, process.stderr.read()
    for number in numbers:
      process.send_signal(number)
      time.sleep(between)
    out, err = process.communicate(timeout=20)
  finally:
    process.kill()
  return process.returncode, err, out


INTERRUPTED = 130, "error: interrupted\n"
STOPPED = 75, "error: stopped at once, as asked; the same command can be run again\n"


@pytest.mark.parametrize("program", [IMPORTS, COMPILES])
@pytest.mark.parametrize("number, expected", [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, STOPPED)])
def test_before_there_is_anything_to_save_a_signal_ends_the_process_at_once(program, number, expected):
  assert ended(program, number)[:2] == expected


def test_a_signal_that_another_handler_took_ends_nothing_when_ours_is_back():
  assert ended(LENDS) == (0, "", "theirs\n")


def test_a_training_is_asked_to_stop_by_sigterm():
  code, err, out = ended(TRAINS, signal.SIGTERM)
  assert (code, out) == (75, "closes\nclosed\n") and "stopped as asked after step" in err and err.count("\n") == 1


def test_an_interrupted_training_closes_what_is_open_and_a_second_one_ends_it():
  assert ended(TRAINS, signal.SIGINT) == (*INTERRUPTED, "closes\nclosed\n")
  assert ended(TRAINS, signal.SIGINT, signal.SIGINT, between=0.2) == (*INTERRUPTED, "closes\n")


def test_importing_the_commands_does_not_touch_the_signals():
  program = """
import signal
before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
import launch.evaluate
assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
assert signal.set_wakeup_fd(-1) == -1
"""
  subprocess.run([sys.executable, "-c", program], check=True)
