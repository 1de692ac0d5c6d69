"""A codebook that is learnt, in a system: how a config names it, and how it is trained."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from omniimage.distributed.mesh import batch_sharding, global_batch, make_mesh
from omniimage.distributed.sharding import state_shardings
from omniimage.models.quantizers.entropy import entropy_penalty
from omniimage.settings import (
  CODEBOOKS,
  CodebookSettings,
  MeshSettings,
  Settings,
  SettingsError,
  TokenizerSettings,
  from_config,
)
from omniimage.systems import open_system
from omniimage.systems.system import rules_of
from omniimage.training.optimizer import _decayed, _labels, make_optimizer
from omniimage.training.sharded import jitted_step, system_for
from omniimage.training.state import enter_stage, fresh_state
from omniimage.training.step import make_train_step
from tests import small

ROWS = 8


@functools.cache
def settings(quantizer: str) -> Settings:
  return small.learnt(quantizer, **small.SHALLOW)


def weighted(s: Settings, stage: str = "tokenizer", **weights: float) -> Settings:
  row = dataclasses.replace(s.stages[stage], weights={**s.stages[stage].weights, **weights})
  return dataclasses.replace(s, stages={**s.stages, stage: row})


@pytest.mark.parametrize("quantizer", CODEBOOKS)
def test_a_config_that_names_a_quantizer_has_a_codebook_that_is_learnt(quantizer):
  s = settings(quantizer)
  assert isinstance(s.tokenizer, CodebookSettings) and isinstance(small.settings().tokenizer, TokenizerSettings)
  params = jax.eval_shape(small.omni(s).init, jax.random.key(0))
  assert params["tokenizer"]["quantizer"]["codebook"].shape == (32, 4)
  assert small.omni(s).vocabulary.image_codes == 32


@pytest.mark.parametrize(
  "changes, said",
  [
    ({"tokenizer.quantizer": "lfq"}, "config.tokenizer: tokenizer.quantizer='lfq': vq, ibq"),
    ({"tokenizer.codes": 1}, "config.tokenizer.codes=1 must be from 2 to"),
    ({"tokenizer.levels": (8, 8)}, "config.tokenizer.levels is not a setting"),
  ],
)
def test_what_no_codebook_can_be_is_refused(changes, said):
  config = small.config()
  del config.tokenizer.levels
  config.tokenizer.update(dict(quantizer="vq", codes=32, code_width=4, beta=0.25))
  small.put(config, changes)
  with pytest.raises(SettingsError, match=said.replace("(", r"\(")):
    from_config(config)


@pytest.mark.parametrize(
  "s, stage, said",
  [
    (weighted(small.settings(), entropy=0.1), "tokenizer", "that of tokenizer.levels is fixed"),
    (
      weighted(small.learnt("vq", **{"stages.tokenizer.accumulate": 2}), entropy=0.1), "tokenizer",
      "set accumulate=2 to 1",
    ),
    (
      weighted(small.learnt("vq", gather_params="hand"), entropy=0.1), "tokenizer",
      "gather_params='hand' to 'compiler'",
    ),
    (weighted(settings("vq"), "joint", pixel=0.0), "joint", "whose own loss is part of weights.pixel"),
  ],
)  # fmt: skip
def test_a_stage_that_would_teach_a_codebook_something_else_is_refused(s, stage, said):
  with pytest.raises(SettingsError, match=said):
    open_system(s, small.text_tokenizer().size).check(stage)


def test_the_entropy_term_is_of_the_images_that_there_are():
  s = weighted(settings("ibq"), entropy=0.5, pixel=0.0)
  system, stage = small.system(s), s.stages["tokenizer"]
  batch, params = small.batch(s, ROWS), small.params(system)
  batch["image_mask"] = np.arange(batch["image_mask"].size).reshape(batch["image_mask"].shape) % 3 > 0

  @jax.jit
  def losses(params):
    return system.losses(stage, params, batch, jax.random.split(jax.random.key(0), ROWS), None, system.totals(batch))

  loss, terms = losses(params)
  images = batch["images"][batch["image_mask"]].astype(np.float32) / 127.5 - 1
  affinity = system.omni.encode(system.omni.view(params), jnp.asarray(images)).affinity.reshape(-1, 32)
  expected = entropy_penalty(affinity, jnp.full(len(affinity), 1 / len(affinity)))
  assert terms["entropy"] == pytest.approx(float(expected), rel=1e-4)
  assert loss == pytest.approx(0.5 * float(expected), rel=1e-4)


@pytest.mark.parametrize("quantizer", CODEBOOKS)
def test_a_codebook_moves_by_adam_and_does_not_decay(quantizer):
  params = jax.eval_shape(small.omni(settings(quantizer)).init, jax.random.key(0))["tokenizer"]
  assert _labels(params)["quantizer"]["codebook"] == "adam" and not _decayed(params)["quantizer"]["codebook"]
  assert _labels(params)["encoder"]["layers"]["mlp"]["up"]["kernel"] == "muon"


@pytest.mark.parametrize(
  "quantizer, gather, entropy", [("vq", "compiler", 0.05), ("ibq", "compiler", 0.05), ("ibq", "hand", 0.0)]
)
def test_an_update_on_eight_devices_is_that_on_one(quantizer, gather, entropy):
  s = weighted(settings(quantizer), entropy=entropy)
  stage, batch = s.stages["tokenizer"], small.batch(s, ROWS)
  plain = small.system(s)
  fresh = fresh_state(jax.tree.map(jnp.array, small.params(plain)))
  fresh = enter_stage(fresh, stage.moves, make_optimizer(s.optimizer, stage))
  one, metrics = jax.jit(make_train_step(plain, stage, 0))(fresh, batch)

  shape = MeshSettings(2, 4, 1, 1)
  s, mesh = dataclasses.replace(s, mesh=shape, gather_params=gather), make_mesh(shape)
  system = system_for(s, small.text_tokenizer().size, mesh)
  state = jax.device_put(fresh, state_shardings(mesh, rules_of(system), fresh))
  with jax.set_mesh(mesh):
    step = jitted_step(system, "tokenizer", 0, mesh, state)
    many, others = step(state, global_batch(batch, batch_sharding(mesh)))
  for name, value in metrics.items():
    np.testing.assert_allclose(others[name], value, rtol=2e-4, atol=1e-5, err_msg=name)
  # Of Adam: its first update has the size of the rate, however small the gradient.
  moments = (optax.tree.get(x.opt_state["tokenizer"], "nu")["quantizer"]["codebook"] for x in (many, one))
  np.testing.assert_allclose(*moments, rtol=1e-3, atol=1e-12)


def test_codes_that_change_with_their_codebook_are_counted():
  """The encoder stays: what moves is the codebook alone."""
  s = settings("vq")
  system, batch = small.system(s), small.batch(s, ROWS)
  params = small.params(system)
  moved = jax.tree.map(lambda leaf: leaf, params)
  moved["tokenizer"]["quantizer"] = {"codebook": params["tokenizer"]["quantizer"]["codebook"][::-1]}
  observed = jax.jit(system.observed)(params, moved, batch, system.totals(batch))
  assert system.watches(s.stages["joint"]) == ("tokenizer",) and observed["codes_changed"] > 0.9
