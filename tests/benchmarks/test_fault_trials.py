"""One trial of each kind of fault, done to real training processes of one short stage; `tests/training/test_resume.py`
kills. Starting processes takes these tests longer than most.
"""

import random
import shutil
import subprocess

import pytest

from benchmarks import bucket_trials, checkpoint_trials, hang_trials, workdir_trials
from benchmarks import fault_trials as trials
from benchmarks.fault_trials import Reference

ONE_STAGE = ("--config.schedule=('prior',)",)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
  return Reference.make(tmp_path_factory.mktemp("reference") / "run", ONE_STAGE)


def survives(trial, reference, tmp_path, bitwise=True):
  outcome = trial(reference, tmp_path / "run", random.Random(0))
  assert outcome.survived and outcome.bitwise in (bitwise, None), outcome
  return outcome


def test_a_run_that_is_asked_to_stop_loses_no_step_even_if_its_metrics_are_torn(reference, tmp_path):
  assert survives(workdir_trials.torn, reference, tmp_path).lost == [0]


def test_of_two_runs_in_one_workdir_one_trains_and_the_other_says_which(reference, tmp_path):
  survives(workdir_trials.started_twice, reference, tmp_path)


@pytest.mark.parametrize("how", ["truncated", "flipped", "removed"])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_it_taken(reference, tmp_path, how):
  survives(trials.damaged(how), reference, tmp_path)


def test_foreign_files_cost_no_step(reference, tmp_path):
  assert survives(checkpoint_trials.foreign, reference, tmp_path).lost == [0]


def test_a_run_whose_checkpoints_vanished_begins_anew_only_on_purpose(reference, tmp_path):
  survives(checkpoint_trials.vanished, reference, tmp_path)


def test_a_full_disk_is_named_and_costs_no_good_checkpoint(reference, tmp_path):
  try:
    with trials.small_disk(tmp_path / "disk", 2**20):
      pass
  except (OSError, subprocess.CalledProcessError):
    pytest.skip("may not mount a small disk here")
  survives(trials.disk_full, reference, tmp_path)


def test_a_workdir_turned_read_only_is_named(reference, tmp_path):
  if not shutil.which("chattr"):
    pytest.skip("there is no chattr here")
  (tmp_path / "folder").mkdir()
  trials.immutable(tmp_path / "folder", "+i")
  try:
    (tmp_path / "folder" / "file").touch()
    pytest.skip("cannot take the right to write away here")
  except OSError:
    pass
  finally:
    trials.immutable(tmp_path / "folder", "-i")
  survives(trials.read_only, reference, tmp_path)


def test_another_mesh_goes_on_with_the_same_losses(reference, tmp_path):
  survives(trials.other_mesh((1, {}), (8, {"fsdp": 4, "tensor": 2})), reference, tmp_path)


def test_another_number_of_processes_goes_on_with_the_same_losses_and_records(reference, tmp_path):
  survives(trials.other_hosts(1, 2), reference, tmp_path)


def test_when_one_process_dies_the_others_name_it_and_a_single_one_goes_on(reference, tmp_path):
  survives(trials.one_dies(2), reference, tmp_path)


def test_a_run_whose_input_is_stuck_is_named_ends_as_told_and_goes_on(reference, tmp_path):
  survives(hang_trials.stuck(1, haste=8), reference, tmp_path)


def test_gradients_that_are_not_finite_are_stepped_over_or_send_the_run_back(reference, tmp_path):
  assert "back to step 4" in survives(trials.not_finite(3, roll_back_after=3), reference, tmp_path).note


def test_a_run_in_a_bucket_that_was_killed_goes_on_to_the_same_bits(reference, bucket, tmp_path):
  assert survives(bucket_trials.killed_once, reference, tmp_path).lost == [0]


def test_a_checkpoint_in_a_bucket_of_which_an_object_was_changed_is_set_aside(reference, bucket, tmp_path):
  survives(bucket_trials.damaged, reference, tmp_path)


def test_a_bucket_that_answers_badly_costs_a_run_nothing(reference, bucket, tmp_path):
  survives(bucket_trials.answered_badly(0.1, 0.02), reference, tmp_path)


def test_of_two_runs_in_one_folder_of_a_bucket_one_trains_and_the_other_says_which(reference, bucket, tmp_path):
  survives(bucket_trials.started_twice, reference, tmp_path)


def test_two_processes_write_one_checkpoint_in_a_bucket_and_one_goes_on_from_it(reference, bucket, tmp_path):
  survives(bucket_trials.fewer_hosts, reference, tmp_path)
