"""What a run writes of its numbers, and how it goes on behind what a kill or an editor has left of them."""

import json
import logging
import math

import pytest

from omniimage.training.metrics import MetricsWriter, last_wall_seconds, read_metrics


@pytest.fixture
def writer(tmp_path):
  writer = MetricsWriter(tmp_path)
  yield writer
  writer.close()


def lines(folder):
  """Of metrics.jsonl, by a reader that knows neither NaN nor Infinity."""
  texts = (folder / "metrics.jsonl").read_text().splitlines()
  return [json.loads(text, parse_constant=pytest.fail) for text in texts]


def test_numbers_that_are_not_finite_are_null_and_named(writer, tmp_path, caplog):
  writer.begin(0)
  writer.write(1, "prior", {"loss": math.nan, "grad_norm": math.inf, "rate": 0.5})
  named = {"loss": "nan", "grad_norm": "inf"}
  assert lines(tmp_path) == [
    {"step": 1, "stage": "prior", "loss": None, "grad_norm": None, "rate": 0.5, "not_finite": named}
  ]
  assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


TORN = [
  b"\xff",
  b'{"step": 3, "stage": "pri',
  b"\0" * 9,
  b'"x"\n',
  b'{"step": "3", "stage": "prior"}\n',
  b'{"step": 1}\n',
]


@pytest.mark.parametrize("end", TORN, ids=range(len(TORN)))
def test_what_is_torn_or_foreign_in_the_metrics_is_dropped_and_the_run_goes_on(writer, tmp_path, end):
  writer.begin(0)
  for step in (1, 2, 3):
    writer.write(step, "prior", {"loss": 1 / step, "wall_seconds": float(step)})
  writer.close()
  with (tmp_path / "metrics.jsonl").open("ab") as file:
    file.write(end)
  assert last_wall_seconds(tmp_path) == 3
  assert [entry["step"] for entry in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
  writer.begin(2)
  writer.write(3, "prior", {"loss": 9.0})
  assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(1, 1), (2, 0.5), (3, 9)]


def test_the_metrics_of_an_older_version_become_strict(writer, tmp_path):
  (tmp_path / "metrics.jsonl").write_text('{"step": 1, "stage": "prior", "loss": NaN, "wall_seconds": Infinity}\n')
  assert last_wall_seconds(tmp_path) is None
  writer.begin(1)
  assert lines(tmp_path)[0]["not_finite"] == {"loss": "nan", "wall_seconds": "inf"}
