"""A system of one's own: one class and one row of `SYSTEMS`, and the same loop trains it, resumes it and refuses what
it cannot train."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from omniimage.data.batches import empty_batch
from omniimage.errors import UserError
from omniimage.settings import SettingsError, from_config
from omniimage.systems import SYSTEMS, open_generator, open_system
from omniimage.systems.system import Part, System
from omniimage.training.loop import train
from omniimage.vocabulary import Vocabulary
from tests import small


class MeanColor(System):
  """Learns the mean color of the images."""

  parts = {"palette": Part(rules=((r".*", P()),), teachers=("square",))}  # noqa: RUF012
  terms = ("square",)
  identity = ("data.image_size",)

  @property
  def vocabulary(self):
    return Vocabulary(self.text_size, image_codes=4)

  def init(self, key):
    return {"palette": {"mean": 0.1 * jax.random.normal(key, (3,))}}

  def empty_batch(self, rows, size, coded):
    return empty_batch(rows, self.settings.data, self.vocabulary, size, coded)

  def sums(self, batch):
    return {"square": jnp.sum(batch["image_mask"])}

  def losses(self, stage, params, batch, keys, shared, totals):
    means = batch["images"].astype(jnp.float32).mean((-3, -2)) / 127.5 - 1
    error = jnp.sum(jnp.square(means - params["palette"]["mean"]), axis=-1)
    square = jnp.sum(error * batch["image_mask"]) / totals["square"]
    return stage.weight("square") * square, {"square": square}


@pytest.fixture
def config(monkeypatch):
  monkeypatch.setitem(SYSTEMS, "mean_color", MeanColor)
  config = small.config(schedule=("prior",), system="mean_color", **{"optimizer.muon_rms": 0.0})
  with config.unlocked():
    config.stages.prior.steps = 40
    config.stages.prior.rates = {"palette": 0.2}
    config.stages.prior.weights = {"square": 1.0}
  return config


def test_the_loop_trains_and_resumes_it(config, tmp_path):
  whole = train(config, tmp_path / "whole")
  background = small.batch(small.settings())["images"][0, 0, 0, 0] / 127.5 - 1
  assert np.abs(whole.averaged["palette"]["mean"] - background).max() < 0.25  # of which most pixels are
  config.run.checkpoint_every = 7
  train(config, tmp_path / "parts")
  again = train(config, tmp_path / "parts", from_step=35)
  np.testing.assert_array_equal(again.params["palette"]["mean"], whole.params["palette"]["mean"])


def test_what_it_cannot_train_is_refused(config, tmp_path):
  with config.unlocked():
    config.stages.prior.weights = {"sqare": 1.0}
  with pytest.raises(SettingsError, match=r"did you mean config\.stages\.prior\.weights\.square\?"):
    train(config, tmp_path)


def test_what_draws_nothing_cannot_be_looked_at(config):
  with pytest.raises(UserError, match=r"config\.system='mean_color' cannot draw"):
    open_generator(open_system(from_config(config), small.text_tokenizer().size), {}, small.text_tokenizer())
