"""The loop around the step, with a step that learns nothing and compiles nothing."""

import json
import re
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.errors import UserError
from omniimage.training import hangs
from omniimage.training.loop import Trainer
from omniimage.training.samples import SampleSheets
from omniimage.training.state import TrainState, fresh_state
from omniimage.workdir import Workdir
from tests import small


def learns_nothing(state: TrainState, batch):
  state = state.replace(step=state.step + 1, batch_index=state.batch_index + 1)
  empty = not np.any(batch["loss_weights"])
  return state, {"loss": 1.0, "spike_score": 0.0, "skipped_in_a_row": 0, "empty": int(empty)}


@pytest.fixture
def trainer(tmp_path, monkeypatch):
  monkeypatch.setattr(Trainer, "compile_step", lambda self, state, stage, start: learns_nothing)
  monkeypatch.setattr(Trainer, "_pass_on", lambda self, state: state)
  monkeypatch.setattr(SampleSheets, "write", lambda *_: None)
  config = small.config(**{"stages.tokenizer.steps": 40, "run.log_every": 1, "run.checkpoint_every": 1000})
  trainer = Trainer.prepare(config, Workdir(tmp_path))
  yield trainer
  trainer.close()


def train(trainer: Trainer) -> TrainState:
  state = fresh_state({"tokenizer": {"kernel": jnp.zeros(3)}})
  return trainer.run_stage(state, "tokenizer", lambda step: False)


def lines(trainer: Trainer, name: str) -> list[dict]:
  return [json.loads(line) for line in (trainer.workdir.metrics / name).read_text().splitlines()]


def test_the_metrics_say_how_full_rows_are_what_was_dropped_and_what_could_not_be_read(trainer):
  train(trainer)
  last = lines(trainer, "metrics.jsonl")[-1]
  assert last["step"] == 40 and last["bad_records"] == 0
  assert 0.5 < last["packing_fill"] <= 1 and 0 <= last["packing_dropped"] < 0.02


def test_where_the_storage_fails_the_run_stops_in_one_line_that_says_so(trainer, monkeypatch):
  record, read = type(trainer.batches._reader.source).record, []

  def failing(self, index, rng):
    read.append(index)
    if len(read) > 100:
      raise OSError("Transport endpoint is not connected")
    return record(self, index, rng)

  monkeypatch.setattr(type(trainer.batches._reader.source), "record", failing)
  with pytest.raises(UserError, match=r"of the last .* could not be read.*Transport endpoint is not connected"):
    train(trainer)
  assert len(lines(trainer, "metrics.jsonl")) < 30


def test_input_that_stands_still_is_named_while_it_does_and_in_the_metrics_after(trainer, monkeypatch, caplog):
  for name in ("BEAT", "FLOOR", "LATER"):
    monkeypatch.setattr(hangs, name, 0.2)
  record, read, named = type(trainer.batches._reader.source).record, [], threading.Event()

  def standing_still(self, index, rng):
    read.append(index)
    if len(read) > 100:
      named.wait(20)
    return record(self, index, rng)

  def wait_for_the_name():
    end, said = time.monotonic() + 20, r"process 0 \(\S+\) hangs in the input of step \d+ since"
    while time.monotonic() < end and not re.search(said, caplog.text):
      time.sleep(0.02)
    named.set()

  monkeypatch.setattr(type(trainer.batches._reader.source), "record", standing_still)
  waiting = threading.Thread(target=wait_for_the_name)
  waiting.start()
  assert int(train(trainer).step) == 40
  waiting.join()
  assert "hangs in the input" in caplog.text
  assert max(line["input_seconds"] for line in lines(trainer, "metrics.jsonl")) > 0.2
  log = trainer.workdir.log.read_text()
  assert "hangs in the input" in log and "in standing_still" in log
