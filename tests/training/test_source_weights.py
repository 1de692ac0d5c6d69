"""A curriculum: stages that draw from a mixture by weights of their own, as few objects first and many later."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from omniimage.data.batches import Batches
from omniimage.errors import SettingsError
from omniimage.settings import from_config
from omniimage.training.loop import Trainer
from omniimage.training.samples import SampleSheets
from omniimage.training.state import fresh_state
from omniimage.workdir import Workdir
from tests import small
from tests.training.test_loop import learns_nothing

WORLD = small.config().data.source.to_dict()
FEW, MANY = ({**WORLD, "min_objects": n, "max_objects": n} for n in (1, 2))
RECORDS = 2**20  # of the first source, which stand first


def config(**changes) -> ConfigDict:
  mixture = ConfigDict({"name": "mixture", "sources": (FEW, MANY), "weights": (1.0, 3.0)})
  steps = {f"stages.{name}.steps": 4 for name in ("tokenizer", "prior")}
  weights = {"stages.tokenizer.source_weights": (7.0, 1.0)}
  return small.config(**{"data.source": mixture, "schedule": ("tokenizer", "prior"), **steps, **weights, **changes})


@pytest.fixture
def trainer(tmp_path, monkeypatch):
  monkeypatch.setattr(Trainer, "compile_step", lambda self, state, stage, start: learns_nothing)
  monkeypatch.setattr(Trainer, "_pass_on", lambda self, state: state)
  monkeypatch.setattr(SampleSheets, "write", lambda *_: None)
  trainer = Trainer.prepare(config(), Workdir(tmp_path))
  yield trainer
  trainer.close()


def share_of_few(batches: Batches) -> float:
  records = [record for index in range(40) for row in batches.record_ids(index, 8) for record in row]
  return float(np.mean(np.array(records) < RECORDS))


def test_a_stage_draws_by_its_own_weights_and_the_others_by_those_of_the_data(trainer, monkeypatch):
  own, iterate = [], Batches.iterate

  def noted(self, *args):
    own.append(self)
    return iterate(self, *args)

  monkeypatch.setattr(Batches, "iterate", noted)
  state = fresh_state({"tokenizer": {"kernel": np.zeros(3, np.float32)}})
  for stage in ("tokenizer", "prior"):
    state = trainer.run_stage(state, stage, lambda step: False)
  shares = [share_of_few(batches) for batches in own]
  assert shares == pytest.approx([7 / 8, 1 / 4], abs=0.04)
  assert own[1] is trainer.batches and own[0] is trainer.reweighed["tokenizer"]


def test_what_is_noted_of_an_update_are_the_records_of_its_stage(trainer):
  state = fresh_state({"tokenizer": {"kernel": np.zeros(3, np.float32)}})
  trainer.run_stage(state, "tokenizer", lambda step: False)
  metrics = {"loss": np.float32("nan"), "spike_score": 0.0, "skipped_in_a_row": 1, "empty": 0}
  trainer.faults.see(1, 0, 8, metrics)
  noted = (trainer.workdir.metrics / "faults.jsonl").read_text()
  assert str(trainer.reweighed["tokenizer"].record_ids(0, 8)) in noted


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"stages.prior.source_weights": (1.0,)},
      r"stages\.prior\.source_weights=\(1\.0,\): data\.source mixes 2 sources; give a weight for each, or \(\)",
    ),
    ({"stages.prior.source_weights": (1.0, 0.0)}, r"source_weights\[1\]=0\.0 must be from"),
    ({"data.source": ConfigDict(WORLD)}, r"source_weights=\(7\.0, 1\.0\) are of a mixture, and data\.source is scenes"),
  ],
)
def test_weights_that_do_not_fit_the_source_are_one_line(changes, message):
  with pytest.raises(SettingsError, match=message) as error:
    from_config(config(**changes))
  assert "\n" not in str(error.value)
