import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from omniimage.training.optimizer import learning_rate, make_optimizer
from tests import small


def _stage(**changes):
  """A stage in which all three parts move at the same rate from its first step on."""
  s = small.settings()
  rates = dict(tokenizer_rate=1e-2, prior_rate=1e-2, decoder_rate=1e-2, warmup_steps=0, steps=100)
  return s.optimizer, dataclasses.replace(s.stages["joint"], **{**rates, **changes})


def _moments(optimizer, params, grads) -> dict:
  """First moments of each part after one update from `grads`."""
  _, state = optimizer.update(grads, optimizer.init(params), params)
  return {part: optax.tree.get(state[part], "mu") for part in state}


def test_each_part_is_clipped_by_itself():
  settings, stage = _stage()
  params = {part: {"kernel": jnp.zeros(4)} for part in ("tokenizer", "prior", "decoder")}
  small_gradient = jnp.asarray([0.3, -0.4, 0.0, 0.0])  # of length 0.5
  grads = {"tokenizer": {"kernel": small_gradient}, "prior": {"kernel": 1e6 * small_gradient}}
  grads["decoder"] = {"kernel": 4 * small_gradient}
  moments = _moments(make_optimizer(settings, stage), params, grads)
  taken = {part: moments[part]["kernel"] / (1 - settings.b1) for part in moments}
  assert settings.clip_norm == 1.0
  np.testing.assert_allclose(taken["tokenizer"], small_gradient, rtol=1e-5)
  for part in ("prior", "decoder"):
    np.testing.assert_allclose(taken[part], 2 * small_gradient, rtol=1e-5)


def test_parts_that_do_not_move_have_no_optimizer_state():
  settings, stage = _stage(tokenizer_rate=0.0, decoder_rate=0.0)
  params = {part: {"kernel": jnp.ones(4)} for part in ("tokenizer", "prior", "decoder")}
  optimizer = make_optimizer(settings, stage)
  state = optimizer.init(params)
  updates, state = optimizer.update(params, state, params)
  assert set(state) == set(updates) == {"prior"}


def test_weight_decay_shrinks_matrices_and_tables_and_skips_norms_and_biases_also_when_stacked():
  s = small.settings(**{"optimizer.weight_decay": 0.5, "prior.qkv_bias": True})
  _, stage = _stage()
  shapes = jax.eval_shape(small.omni(s).init, jax.random.key(0))
  params = jax.tree.map(lambda leaf: jnp.full((1,) * leaf.ndim, 2.0), shapes)  # of one element each: quick to compile
  optimizer = make_optimizer(s.optimizer, stage)
  updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
  undecayed = set()
  for path, update in jax.tree.leaves_with_path(updates):
    names = [key.key for key in path]
    dimensions = update.ndim - ("layers" in names)
    if np.any(update):
      np.testing.assert_allclose(update, -1e-2 * 0.5 * 2.0, rtol=1e-5)
      assert dimensions >= 2, names
    else:
      undecayed.add(names[-1])
      assert dimensions == 1 or names[-2:] in (
        ["layers", "modulation"],
        ["query", "bias"],
        ["key", "bias"],
        ["value", "bias"],
      )
  assert undecayed == {"scale", "bias", "modulation", "null_tokens", "null_text"}


@pytest.mark.parametrize("warmup", [0, 1, 20, 100])
def test_the_learning_rate_warms_up_in_a_line_and_falls_by_a_cosine_to_its_final_share(warmup):
  settings, stage = _stage(warmup_steps=warmup)
  rate = learning_rate(settings, stage, peak=3e-3)
  rates = np.asarray([rate(step) for step in range(stage.steps + 1)])
  np.testing.assert_allclose(rates[: warmup + 1], np.linspace(0, 3e-3, warmup + 1) if warmup else 3e-3, rtol=1e-5)
  if warmup < stage.steps:
    falling = np.linspace(0, np.pi, stage.steps - warmup + 1)
    share = settings.final_rate + (1 - settings.final_rate) * (1 + np.cos(falling)) / 2
    np.testing.assert_allclose(rates[warmup:], 3e-3 * share, rtol=1e-5)


def test_every_part_follows_its_own_rate():
  settings, stage = _stage(prior_rate=1e-3, decoder_rate=0.0, warmup_steps=2)
  optimizer = make_optimizer(dataclasses.replace(settings, weight_decay=0.0), stage)
  params = {part: {"kernel": jnp.ones(3)} for part in ("tokenizer", "prior", "decoder")}
  state, sizes = optimizer.init(params), []
  for _ in range(3):
    updates, state = optimizer.update(params, state, params)
    sizes.append({part: float(-updates[part]["kernel"][0]) for part in updates})
  # A constant gradient makes every update of Adam as large as its rate.
  expected = [{"tokenizer": share * 1e-2, "prior": share * 1e-3} for share in (0, 0.5, 1)]
  assert sizes == [pytest.approx(row, rel=1e-3) for row in expected]
