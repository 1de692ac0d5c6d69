"""One computation's timeline."""

import numpy as np

from omniimage.planning.schedule import Ledger, Schedule

THREE = np.array([1.0, 2.0, 4.0])  # low, likely, high


def test_work_adds_up_level_by_level():
  schedule = Schedule()
  schedule.work(THREE)
  schedule.work(THREE)
  assert schedule.now.tolist() == [2, 4, 8]


def test_a_transfer_that_work_covers_is_not_waited_for():
  schedule = Schedule()
  schedule.start("gather", "network", 3.0, "all-gather", "prior")
  schedule.work(THREE)
  moment, _, _ = schedule.pending["gather"]
  assert schedule.until(moment) == 1  # likely: 3 − 2
  assert schedule.now.tolist() == [3, 3, 4]


def test_transfers_of_one_resource_queue_and_those_of_two_do_not():
  schedule = Schedule()
  for name, resource in (("first", "network"), ("second", "network"), ("third", "copy")):
    schedule.start(name, resource, 3.0, "", "")
  assert [schedule.pending[name][0].tolist() for name in ("first", "second", "third")] == [[3] * 3, [6] * 3, [3] * 3]


def test_a_synchronous_transfer_waits_for_those_before_it():
  schedule = Schedule()
  schedule.start("gather", "network", 3.0, "all-gather", "prior")
  assert schedule.hold("network", 5.0) == 8
  assert schedule.now.tolist() == [8, 8, 8]


def test_the_ledger_multiplies_a_loop_s_body():
  ledger = Ledger()
  ledger.row("prior", "forward", 2.0, 7)
  ledger.row("prior", "forward", 1.0, 1)
  assert ledger.rows["prior", "forward"] == [15, 8]
