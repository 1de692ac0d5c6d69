"""Where the time goes."""

import pytest

from omniimage.training import accounts as module
from omniimage.training.accounts import KINDS, Accounts, input_metrics


@pytest.fixture
def clock(monkeypatch):
  """A clock that the test moves."""
  now = [100.0]
  monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
  return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_every_second_goes_to_one_kind_and_to_the_stage(clock):
  accounts = Accounts()
  clock(2)
  accounts.enter("prior")
  accounts.turn_to("steps")
  clock(6)
  accounts.turn_to("checkpoint")
  clock(2)
  metrics = accounts.metrics()
  assert metrics["wall_seconds"] == 10 and metrics["goodput/steps"] == 0.6
  assert metrics["goodput/start"] == metrics["goodput/checkpoint"] == 0.2
  assert sum(metrics[f"goodput/{kind}"] for kind in KINDS) == pytest.approx(1)
  assert accounts.stages == {"prior": 8}


def test_a_restarted_run_adds_up_what_all_its_processes_did_and_lost(clock):
  accounts = Accounts()
  clock(3)
  accounts.go_on({"steps": 50.0, "start": 7.0}, {"prior": 52.0}, lost=20.0)
  assert accounts.kinds == {**dict.fromkeys(KINDS, 0.0), "steps": 50.0, "start": 10.0, "lost": 20.0}
  assert accounts.total == 80 and accounts.stages == {"prior": 52.0}


def test_going_back_turns_what_came_after_the_checkpoint_into_loss(clock):
  accounts = Accounts()
  accounts.turn_to("steps")
  clock(5)
  saved = dict(accounts.kinds)
  assert accounts.total == 5
  saved = dict(accounts.kinds)
  clock(4)
  accounts.go_back(saved, {})
  assert accounts.kinds["steps"] == 5 and accounts.kinds["lost"] == 4 and accounts.total == 9


def test_a_step_takes_what_its_input_and_its_update_take_and_not_what_is_compiled_or_saved_in_it(clock):
  accounts = Accounts()
  accounts.turn_to("compile", 1)
  for step, (compiling, waiting, working, saving) in enumerate([(50, 0, 0, 0), (0, 1, 2, 30), (9, 1, 3, 0)], start=1):
    for kind, seconds in (("compile", compiling), ("input", waiting), ("steps", working), ("checkpoint", saving)):
      accounts.turn_to(kind)
      clock(seconds)
    accounts.turn_to("input", step + 1)
  assert list(accounts.step_seconds) == [3, 4] and accounts.doing == ("input", 4)
  accounts.turn_to("compile", 2)  # gone back
  accounts.enter("joint")
  assert not accounts.step_seconds, "the steps of another stage take another time"


def test_the_wait_for_input_is_a_mean_of_the_steps_since_it_was_last_asked_for(clock):
  accounts = Accounts()
  for step, seconds in enumerate((1, 2, 6), start=1):
    accounts.turn_to("input", step)
    clock(seconds)
    accounts.turn_to("steps")
    clock(10)
  assert accounts.input_wait() == 3
  accounts.turn_to("input", 4)
  clock(0.5)
  assert accounts.input_wait() == 0.5


def test_the_process_whose_input_is_slow_stands_out():
  waits = [0.1] * 20
  waits[13] = 2.1
  metrics = input_metrics(waits)
  assert metrics["input_seconds"] == pytest.approx(0.2) and metrics["input_slowest"] == 13
  assert metrics["input_apart"] == pytest.approx(2.0) and metrics["input_seconds/13"] == 2.1
  assert sum(name.startswith("input_seconds/") for name in metrics) == 8
  assert input_metrics([0.3]) == {"input_seconds": 0.3}
