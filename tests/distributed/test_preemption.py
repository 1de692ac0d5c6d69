"""Asked to stop, one process or several save after one and the same step; started again, nothing of it is left."""

import os
import signal
import threading

import pytest

from omniimage.distributed import preemption
from tests.process_of_a_run import Run


@pytest.fixture
def before():
  """A handler of SIGTERM that was there before, and that must be there after."""
  caught = []
  old = signal.signal(signal.SIGTERM, lambda number, frame: caught.append(number))
  yield caught
  signal.signal(signal.SIGTERM, old)


def test_one_process_is_told_at_the_next_step_and_from_then_on(before):
  with preemption.notice() as asked_to_stop:
    assert not asked_to_stop(1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert asked_to_stop(2) and asked_to_stop(3)
  assert not before


def test_the_handler_that_was_there_is_there_again(before):
  with pytest.raises(preemption.Preempted), preemption.notice():
    raise preemption.Preempted(3)
  os.kill(os.getpid(), signal.SIGTERM)
  assert before == [signal.SIGTERM]


def test_outside_of_the_main_thread_nothing_is_installed(before):
  answers = []

  def ask():
    with preemption.notice() as asked_to_stop:
      os.kill(os.getpid(), signal.SIGTERM)
      answers.append(asked_to_stop(1))

  thread = threading.Thread(target=ask)
  thread.start()
  thread.join()
  assert answers == [False] and before == [signal.SIGTERM]


def test_being_stopped_says_after_which_step_and_that_it_should_run_again():
  assert "after step 7" in str(preemption.Preempted(7)) and preemption.Preempted(7).exit_code == 75


@pytest.mark.parametrize("asked", [0, 1])
def test_all_processes_stop_after_the_same_step_whichever_is_asked(asked):
  with Run(2) as run:
    run.wait_for(5)
    run.processes[asked].send_signal(signal.SIGTERM)
    assert run.codes() == [75, 75], run.said()
  steps = [run.last_step(index) for index in range(2)]
  assert steps[0] == steps[1] > 5
  assert all(f"stopped as asked after step {steps[0]}" in said for said in run.said())
