"""Which updates count."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.settings import FaultSettings
from omniimage.training.health import ENOUGH, WINDOW, fresh_health, judge, spike_score
from omniimage.training.optimizer import make_optimizer
from omniimage.training.state import TrainState, enter_stage, fresh_state
from omniimage.training.step import make_train_step
from tests import small

FAULTS = FaultSettings(spike_score=5.0, skip_spikes=True, roll_back_after=3, end_hanging_after=0)
LOSSES = np.random.default_rng(0).normal(2.0, 0.1, 2 * WINDOW).astype(np.float32)


def after(losses, faults=FAULTS, norm=1.0, teaches=True):
  """The health after these losses, and what was said of the last."""
  health, judge_one = fresh_health(), jax.jit(functools.partial(judge, faults=faults))
  for loss in losses:
    good, health, metrics = judge_one(health, jnp.float32(loss), {"prior": jnp.float32(norm)}, jnp.bool_(teaches))
  return bool(good), health, metrics


def test_the_score_is_the_robust_one_of_the_last_losses():
  _, health, _ = after(LOSSES)
  last = LOSSES[-WINDOW:]
  np.testing.assert_array_equal(health.losses, last)
  deviation = 1.4826 * np.median(np.abs(last - np.median(last)))
  np.testing.assert_allclose(spike_score(health.losses, 3.0), (3.0 - np.median(last)) / deviation, rtol=1e-5)


def test_a_spike_is_skipped_and_not_taken_for_normal_afterwards():
  good, health, metrics = after([*LOSSES, 9.0, 9.0])
  assert not good and metrics["skipped_in_a_row"] == 2 and 9.0 not in health.losses
  good, _, metrics = after([*LOSSES, 9.0, 9.0, 2.0])
  assert good and metrics["skipped_in_a_row"] == 0


def test_a_spike_counts_where_the_config_does_not_skip_it():
  good, health, metrics = after([*LOSSES, 9.0], dataclasses.replace(FAULTS, skip_spikes=False))
  assert good and metrics["spike_score"] > 50 and 9.0 in health.losses


def test_a_falling_loss_is_no_spike_nor_is_anything_while_there_are_few():
  assert after([*LOSSES, -50.0])[0]
  assert after([*LOSSES[: ENOUGH - 1], 9.0])[0] and not after([*LOSSES[:ENOUGH], 9.0])[0]


@pytest.mark.parametrize(("loss", "norm"), [(np.nan, 1.0), (np.inf, 1.0), (2.0, np.nan), (2.0, np.inf)])
def test_what_is_not_finite_does_not_count(loss, norm):
  assert not after([loss], norm=norm)[0]


def test_losses_that_do_not_vary_make_no_spike_of_a_breath():
  assert after([2.0] * WINDOW + [2.009])[0]


def test_a_loss_that_was_always_zero_makes_no_spike_of_a_healthy_one():
  good, _, metrics = after([0.0] * WINDOW + [2.0])
  assert good and metrics["spike_score"] == 0


def test_a_batch_that_teaches_nothing_neither_counts_nor_is_held_against_the_run():
  _, before, _ = after([*LOSSES, 9.0])
  good, health, metrics = judge(before, jnp.float32(0), {"prior": jnp.float32(0)}, jnp.bool_(False), FAULTS)
  assert not good and metrics["empty"] == 1
  assert metrics["skipped_in_a_row"] == health.skipped_in_a_row == 1  # of the spike before
  np.testing.assert_array_equal(health.losses, before.losses)


@functools.cache
def settings():
  return small.settings(**small.SHALLOW)


def entered(stage: str) -> TrainState:
  s = settings()
  state = fresh_state(jax.tree.map(jnp.asarray, small.params(small.omni(s))))
  return enter_stage(state, s.stages[stage].moves, make_optimizer(s.optimizer, s.stages[stage]))


@pytest.mark.parametrize("poisoned", ["loss", "gradient"])
def test_an_update_that_is_not_finite_changes_nothing_but_the_counters(poisoned):
  system = small.system(settings())
  losses = system.losses

  @jax.custom_vjp
  def poison(loss, at_step):
    return jnp.where(at_step == 1, jnp.nan, loss) if poisoned == "loss" else loss

  poison.defvjp(
    lambda loss, at_step: (poison(loss, at_step), at_step),
    lambda at_step, g: (jnp.where(at_step == 1, jnp.nan, g), None),
  )

  def poisoned_losses(stage, params, batch, keys, shared, totals):
    loss, metrics = losses(stage, params, batch, keys, shared, totals)
    return poison(loss, batch["at_step"][0]), metrics

  system.losses = poisoned_losses
  step = jax.jit(make_train_step(system, settings().stages["prior"], 0))

  def run(steps):
    state, batch = entered("prior"), small.batch(settings())
    for at_step in steps:
      state, metrics = step(state, {**batch, "at_step": jnp.full(8, at_step)})
    return state, metrics

  before, (after_bad, metrics) = run([0])[0], run([0, 1])
  assert metrics["skipped_in_a_row"] == after_bad.health.skipped_in_a_row == 1
  assert after_bad.step == before.step + 1 and after_bad.batch_index == before.batch_index + 1
  for name in ("params", "ema", "opt_state"):
    jax.tree.map(np.testing.assert_array_equal, getattr(after_bad, name), getattr(before, name))
  np.testing.assert_array_equal(after_bad.health.losses, before.health.losses)
  recovered, metrics = run([0, 1, 2])
  assert metrics["skipped_in_a_row"] == 0 and np.isfinite(metrics["loss"])
  assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(recovered.params), jax.tree.leaves(before.params)))


def test_an_update_on_nothing_changes_nothing_but_the_counters():
  """As where no record of a batch can be read: moments and weight decay would move the weights all the same."""
  step = jax.jit(make_train_step(small.system(settings()), settings().stages["prior"], 0))
  batch = small.batch(settings())
  before, _ = step(entered("prior"), batch)
  empty = {**batch, "loss_weights": np.zeros_like(batch["loss_weights"])}
  after_empty, metrics = step(before, empty)
  assert metrics["empty"] == 1 and metrics["skipped_in_a_row"] == 0 and after_empty.step == before.step + 1
  for name in ("params", "ema", "opt_state", "health"):
    jax.tree.map(np.testing.assert_array_equal, getattr(after_empty, name), getattr(before, name))
