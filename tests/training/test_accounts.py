"""Where the time goes."""

import pytest

from omniimage.training import accounts as module
from omniimage.training.accounts import KINDS, Accounts


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
