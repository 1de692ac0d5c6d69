import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.systems.omni import OmniSystem
from omniimage.training.optimizer import make_optimizer
from omniimage.training.state import TrainState, enter_stage, fresh_state
from omniimage.training.step import make_train_step
from tests import small

STARTS = {"tokenizer": 0, "prior": 10, "decoder": 20, "joint": 30}  # of the stages
STAGES, PARTS = tuple(STARTS), tuple(OmniSystem.parts)


@functools.cache
def _settings():
  return small.settings(**small.SHALLOW)


@functools.cache
def _batch():
  return small.batch(_settings())


@functools.cache
def _step(stage: str):
  s = _settings()
  return jax.jit(make_train_step(small.system(s), s.stages[stage], STARTS[stage]))


@functools.cache
def _entered(stage: str) -> TrainState:
  """The state at the beginning of a stage."""
  s = _settings()
  state = fresh_state(jax.tree.map(jnp.asarray, small.params(small.omni(s))))
  state = state.replace(step=jnp.int32(STARTS[stage]), batch_index=jnp.int32(STARTS[stage] + 7))
  return enter_stage(state, s.stages[stage].moves, make_optimizer(s.optimizer, s.stages[stage]))


@functools.cache
def _after(stage: str):
  """State and metrics after one update."""
  return _step(stage)(_entered(stage), _batch())


def _changed(old, new) -> set[bool]:
  return {not np.array_equal(a, b, equal_nan=True) for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new))}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_frozen_parts_do_not_change_by_a_bit_and_have_no_optimizer_state(stage):
  moves = PARTS if stage == "joint" else (stage,)
  before, (after, metrics) = _entered(stage), _after(stage)
  for part in PARTS:
    changed = _changed(before.params[part], after.params[part])
    assert True in changed if part in moves else changed == {False}
  for tree in (after.ema, after.opt_state):
    assert set(tree) == set(moves)
  assert {name.split("/")[1] for name in metrics if name.startswith("grad_norm/")} == set(moves)
  assert all(np.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("stage", STAGES)
def test_an_update_moves_the_state_on_by_one_and_the_averages_towards_the_parameters(stage):
  before, (after, _) = _entered(stage), _after(stage)
  assert (int(after.step), int(after.batch_index)) == (STARTS[stage] + 1, STARTS[stage] + 8)
  for part in after.ema:  # the first update of a stage leaves a tenth of where it began
    for old, new, average in zip(*(jax.tree.leaves(t[part]) for t in (before.ema, after.params, after.ema))):
      np.testing.assert_allclose(average, 0.1 * old + 0.9 * new, rtol=1e-5, atol=1e-6)


def test_the_same_state_and_batch_give_the_same_state_to_the_bit():
  again, metrics = _step("joint")(_entered("joint"), _batch())
  assert _changed(_after("joint"), (again, metrics)) == {False}


def test_the_terms_of_a_stage_and_the_rate_of_changing_codes_are_logged():
  terms = {"tokenizer": {"pixel"}, "prior": {"image"}, "decoder": {"diffusion"}}
  terms["joint"] = {"image", "diffusion", "pixel", "codes_changed"}
  for stage in STAGES:
    logged = {name for name in _after(stage)[1] if not name.startswith("grad_norm/")}
    assert logged == {"loss", "spike_score", "skipped_in_a_row", "empty", *terms[stage]}


def test_codes_changed_is_the_share_of_the_codes_of_the_images_there_are():
  s = _settings()
  system, batch = small.system(s), dict(_batch())
  model = system.omni
  batch["image_mask"] = batch["image_mask"] & (np.arange(len(batch["image_mask"]))[:, None] < 5)
  old, new = small.params(model, seed=0), small.params(model, seed=0)
  new["tokenizer"]["encoder"]["codes"]["kernel"] = new["tokenizer"]["encoder"]["codes"]["kernel"] * 1.3
  changed = jax.jit(lambda old, new, batch: system.observed(old, new, batch, system.totals(batch))["codes_changed"])
  codes = jax.jit(lambda p: model.encode(model.view(p), batch["images"].astype(np.float32) / 127.5 - 1).codes)
  different = np.asarray(codes(old) != codes(new))[batch["image_mask"]]
  assert changed(old, old, batch) == 0 and 0 < different.mean() < 1
  assert float(changed(old, new, batch)) == pytest.approx(different.mean(), rel=1e-6)


def _fake(loss_of_rows, **changes):
  """A step whose loss is a plain function of (keys, layout, tokens), with one parameter: what reaches the losses."""
  s = small.settings(**changes)
  stage = s.stages["prior"]

  def losses(stage, params, batch, keys, layout, totals):
    values = loss_of_rows(keys, layout, batch["tokens"])
    return jnp.sum(values) * params["prior"]["kernel"].sum(), {"rows": jnp.sum(values), "layout": layout}

  system = small.system(s)
  system.losses = losses
  state = fresh_state({part: {"kernel": jnp.ones((2, 2))} for part in PARTS})
  state = enter_stage(state, stage.moves, make_optimizer(s.optimizer, stage))
  tokens = np.arange(8, dtype=np.int32)[:, None]
  batch = {name: np.zeros((8, 1), bool) for name in ("image_mask", "image_is_target")}
  batch |= {"tokens": tokens, "loss_weights": np.ones((8, 1), np.float32)}
  return jax.jit(make_train_step(system, stage, 0)), state, batch


def test_every_chunk_layout_is_drawn():
  layouts = {"decoder.chunk_rows": (2, 0, 2), "decoder.chunk_offsets": (0, 0, 1)}
  step, state, batch = _fake(lambda keys, layout, tokens: jnp.float32(0), **layouts)
  drawn = [int(step(state.replace(step=jnp.int32(i)), batch)[1]["layout"]) for i in range(60)]
  assert set(drawn) == {0, 1, 2} and min(drawn.count(n) for n in range(3)) > 10


def test_every_row_of_every_step_of_every_seed_has_noise_of_its_own():
  def noise_of(row, **changes):
    """The noise of one row in three steps."""
    uniform = lambda keys, layout, tokens: jax.vmap(jax.random.uniform)(keys) * (tokens[:, 0] == row)  # noqa: E731
    step, state, batch = _fake(uniform, **changes)
    return [float(step(state.replace(step=jnp.int32(i)), batch)[1]["rows"]) for i in range(3)]

  assert noise_of(0) == noise_of(0)
  assert len({*noise_of(0), *noise_of(1), *noise_of(7), *noise_of(0, seed=1)}) == 12


@pytest.mark.parametrize("microbatches", [2, 4])
def test_microbatches_make_the_same_update(microbatches):
  """Each row keeps its key, whichever microbatch it is in."""
  noise = lambda keys, layout, tokens: jax.vmap(jax.random.normal)(keys) * (1 + tokens[:, 0])  # noqa: E731
  results = []
  for accumulate in (1, microbatches):
    step, state, batch = _fake(noise, **{"stages.prior.accumulate": accumulate})
    results.append(step(state, batch))
  (whole, metrics), (added, added_metrics) = results
  np.testing.assert_allclose(added.params["prior"]["kernel"], whole.params["prior"]["kernel"], rtol=1e-5)
  for name in ("loss", "rows", "grad_norm/prior"):
    np.testing.assert_allclose(added_metrics[name], metrics[name], rtol=1e-5)
