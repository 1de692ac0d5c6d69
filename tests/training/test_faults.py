"""What is noted of bad updates, and when the run goes back."""

import json

import numpy as np
import pytest

from omniimage import strict_json
from omniimage.errors import UserError
from omniimage.settings import FaultSettings
from omniimage.training.faults import ROLLBACKS, FaultLog, RollBack


class Records:
  def record_ids(self, batch_index, rows):
    return [[batch_index * rows + row] for row in range(rows)]


@pytest.fixture
def log(tmp_path):
  return FaultLog(
    tmp_path / "faults.jsonl", FaultSettings(5.0, False, roll_back_after=3, end_hanging_after=0), Records()
  )


def metrics(loss=1.0, score=0.0, skipped=0, empty=0):
  counts = {"skipped_in_a_row": np.int32(skipped), "empty": np.int32(empty)}
  return {"loss": np.float32(loss), "spike_score": np.float32(score), **counts}


def lines(log):
  return [json.loads(line) for line in log._path.read_text().splitlines()] if log._path.exists() else []


def test_a_good_update_leaves_nothing(log):
  assert log.see(7, 9, 2, metrics(loss=1.5)) == (1.5, True) and not lines(log)


def test_a_spike_is_noted_with_the_records_of_its_batch(log, caplog):
  log.see(7, 9, 2, metrics(loss=8.0, score=12.0))
  (line,) = lines(log)
  assert line["fault"] == "spike" and not line["skipped"] and line["step"] == 7 and line["batch_index"] == 9
  assert line["records"] == [[18], [19]] and "spike_score 12.0" in caplog.text


def test_a_batch_without_weight_is_noted_as_what_it_is_and_never_sends_the_run_back(log):
  for step in range(5):
    log.see(7 + step, 9, 2, metrics(loss=0.0, skipped=3, empty=1))
  assert {line["fault"] for line in lines(log)} == {"empty batch"}


def test_after_so_many_bad_updates_in_a_row_the_run_goes_back_to_before_them(log):
  assert not log.see(8, 10, 2, metrics(np.nan, np.nan, skipped=1))[1]
  log.see(9, 11, 2, metrics(np.nan, np.nan, skipped=2))
  with pytest.raises(RollBack) as why:
    log.see(10, 12, 2, metrics(np.nan, np.nan, skipped=3))
  assert (why.value.step, why.value.batch_index) == (7, 13)
  assert [line["fault"] for line in lines(log)] == ["not finite"] * 3


def test_a_loss_that_is_not_finite_is_null_and_named(log):
  log.see(7, 9, 2, metrics(loss=np.inf, score=np.nan, skipped=1))
  (line,) = [json.loads(text, parse_constant=pytest.fail) for text in log._path.read_text().splitlines()]
  assert line["loss"] is line["spike_score"] is None
  assert line["not_finite"] == {"loss": "inf", "spike_score": "nan"}


def test_a_line_behind_one_that_was_cut_short_stands_alone(log):
  log._path.write_bytes(b'{"fault": "spike", "st\xff')
  log.see(7, 9, 2, metrics(loss=8.0, score=12.0))
  assert [entry["step"] for entry in strict_json.read_lines(log._path)] == [7]


def test_a_run_that_diverges_again_and_again_ends_with_an_error(log):
  for _ in range(ROLLBACKS):
    log.went_back(RollBack(7, 13), 4)
  with pytest.raises(UserError, match="went back 3 times to the checkpoint of step 4"):
    log.went_back(RollBack(7, 13), 4)
  log.went_back(RollBack(12, 20), 8)  # another checkpoint: it had got on
