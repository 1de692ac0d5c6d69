import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from omniimage.training.optimizer import KERNELS, learning_rate, make_optimizer
from tests import small

RATES = dict(tokenizer=1e-2, prior=1e-2, decoder=1e-2)


def _stage(**changes):
  """A stage in which all three parts move at the same rate from its first step on."""
  s = small.settings()
  return s.optimizer, dataclasses.replace(
    s.stages["joint"], **{"rates": RATES, "warmup_steps": 0, "steps": 100, **changes}
  )


def _moments(optimizer, params, grads) -> dict:
  """Adam's first moments of each part after one update from `grads`."""
  _, state = optimizer.update(grads, optimizer.init(params), params, stage_step=0)
  return {part: optax.tree.get(state[part], "mu") for part in state}


def test_each_part_is_clipped_by_itself():
  settings, stage = _stage()
  settings = dataclasses.replace(settings, muon_rms=0.0)
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
  settings, stage = _stage(rates=dict(prior=1e-2))
  params = {part: {"kernel": jnp.ones(4)} for part in ("tokenizer", "prior", "decoder")}
  optimizer = make_optimizer(settings, stage)
  state = optimizer.init(params)
  updates, state = optimizer.update(params, state, params, stage_step=0)
  assert set(state) == set(updates) == {"prior"}


def test_weight_decay_shrinks_matrices_and_tables_and_skips_norms_and_biases_also_when_stacked():
  s = small.settings(**{"optimizer.weight_decay": 0.5, "optimizer.muon_rms": 0.0, "prior.qkv_bias": True})
  _, stage = _stage()
  shapes = jax.eval_shape(small.omni(s).init, jax.random.key(0))
  params = jax.tree.map(lambda leaf: jnp.full((1,) * leaf.ndim, 2.0), shapes)  # of one element each: quick to compile
  optimizer = make_optimizer(s.optimizer, stage)
  updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params, stage_step=0)
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
  np.testing.assert_allclose(rates[: warmup + 1], np.linspace(0, 3e-3, warmup + 2)[1:], rtol=1e-5)
  if warmup < stage.steps:
    falling = np.linspace(0, np.pi, stage.steps - warmup + 1)
    share = settings.final_rate + (1 - settings.final_rate) * (1 + np.cos(falling)) / 2
    np.testing.assert_allclose(rates[warmup:], 3e-3 * share, rtol=1e-5)


def test_a_stage_of_one_step_that_is_all_warmup_moves_its_parts():
  settings, stage = _stage(steps=1, warmup_steps=1)
  assert learning_rate(settings, stage, peak=1e-2)(0) >= 5e-3


def test_the_rate_of_an_update_is_that_of_its_step_in_the_stage_however_many_were_skipped():
  settings, stage = _stage(rates=dict(prior=1e-2), steps=100)
  optimizer = make_optimizer(dataclasses.replace(settings, weight_decay=0.0, muon_rms=0.0), stage)
  params = {"prior": {"kernel": jnp.ones(3)}}
  updates, _ = optimizer.update(params, optimizer.init(params), params, stage_step=60)  # its own first
  assert -updates["prior"]["kernel"][0] == pytest.approx(float(learning_rate(settings, stage, 1e-2)(60)), rel=1e-3)


def test_every_part_follows_its_own_rate():
  settings, stage = _stage(rates=dict(tokenizer=1e-2, prior=1e-3), warmup_steps=2)
  optimizer = make_optimizer(dataclasses.replace(settings, weight_decay=0.0), stage)
  params = {part: {"kernel": jnp.ones(3)} for part in ("tokenizer", "prior", "decoder")}
  state, sizes = optimizer.init(params), []
  for step in range(3):
    updates, state = optimizer.update(params, state, params, stage_step=step)
    sizes.append({part: float(-updates[part]["kernel"][0]) for part in updates})
  # A constant gradient makes every update of Adam as large as its rate.
  expected = [{"tokenizer": share * 1e-2, "prior": share * 1e-3} for share in (1 / 3, 2 / 3, 1)]
  assert sizes == [pytest.approx(row, rel=1e-3) for row in expected]


def _layers(fill) -> dict:
  """Two stacked layers and what surrounds them, of `fill(shape)`."""
  attention = {"query": {"kernel": fill((2, 6, 2, 4))}, "out": {"kernel": fill((2, 2, 4, 6))}}
  layers = {"attention": attention, "mlp": {"down": {"kernel": fill((2, 12, 6))}}, "norm": {"scale": fill((2, 6))}}
  return {"layers": layers, "embed": {"text": fill((5, 6))}, "out": {"kernel": fill((6, 3))}}


def _noise(seed):
  rng = np.random.default_rng(seed)
  return _layers(lambda shape: jnp.asarray(rng.standard_normal(shape), jnp.float32))


def _first_update(settings, stage, grads):
  optimizer = make_optimizer(settings, stage)
  params = {"prior": _layers(jnp.zeros)}
  return optimizer.update({"prior": grads}, optimizer.init(params), params, stage_step=0)[0]["prior"]


def test_muon_moves_the_matrices_of_each_layer_evenly_in_all_directions_by_the_rate():
  settings, stage = _stage(rates=dict(prior=1e-2))
  updates = _first_update(settings, stage, _noise(0))["layers"]
  kernels = {"query": updates["attention"]["query"], "out": updates["attention"]["out"], "down": updates["mlp"]["down"]}
  shapes = {"query": (6, 8), "out": (8, 6), "down": (12, 6)}
  for name, shape in shapes.items():
    for layer in kernels[name]["kernel"]:
      matrix = np.asarray(layer).reshape(shape) / 1e-2  # in learning rates
      values = np.linalg.svd(matrix, compute_uv=False) / np.sqrt(max(shape))
      assert np.all(np.abs(values - 1) < 0.5), (name, values)
      assert np.sqrt(np.mean(matrix**2)) == pytest.approx(settings.muon_rms, rel=0.25)


def test_layers_of_a_stack_do_not_touch_each_other_under_muon():
  settings, stage = _stage(rates=dict(prior=1e-2))
  settings = dataclasses.replace(settings, clip_norm=1e9)
  grads, other = _noise(0), _noise(1)
  mixed = jax.tree.map(lambda one, two: jnp.stack([one[0], two[1]]), grads["layers"], other["layers"])
  alone, beside = (_first_update(settings, stage, {**grads, "layers": layers}) for layers in (grads["layers"], mixed))
  for one, two in zip(jax.tree.leaves(alone["layers"]), jax.tree.leaves(beside["layers"])):
    np.testing.assert_allclose(one[0], two[0], rtol=1e-5, atol=1e-8)


def test_muon_leaves_tables_norms_and_outer_projections_to_adamw_and_at_zero_everything():
  settings, stage = _stage(rates=dict(prior=1e-2))
  grads = _noise(0)
  adam = optax.chain(
    optax.clip_by_global_norm(settings.clip_norm), optax.adamw(1e-2, settings.b1, settings.b2, weight_decay=0.0)
  )
  params = _layers(jnp.zeros)
  expected = adam.update(grads, adam.init(params), params)[0]
  differing = set()
  for rms in (1.0, 0.0):
    updates = _first_update(dataclasses.replace(settings, muon_rms=rms), stage, grads)
    for (path, one), two in zip(jax.tree.leaves_with_path(updates), jax.tree.leaves(expected)):
      if not np.allclose(one, two, rtol=1e-4, atol=1e-7):
        differing.add((rms, jax.tree_util.keystr(path[-2:], simple=True, separator="/"), path[0].key))
  assert differing == {(1.0, f"{name}/kernel", "layers") for name in ("query", "out", "down")}


def test_every_matrix_of_the_models_layers_is_one_that_muon_knows():
  model = jax.eval_shape(small.omni(small.settings()).init, jax.random.key(0))
  for path, _ in jax.tree.leaves_with_path(model):
    names = [key.key for key in path]
    assert not ("layers" in names and names[-1] == "kernel") or names[-2] in KERNELS, names
