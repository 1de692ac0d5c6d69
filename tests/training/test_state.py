import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from omniimage.training.optimizer import make_optimizer
from omniimage.training.state import TrainState, enter_stage, fresh_state, leave_stage, stage_at, trained_parts
from omniimage.training.step import average
from tests import small

PARAMS = {part: {"kernel": np.full(3, value)} for part, value in (("tokenizer", 1.0), ("prior", 2.0), ("decoder", 3.0))}


def _state() -> TrainState:
  return fresh_state(jax.tree.map(jnp.asarray, PARAMS))


def _equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_stage_begins_with_fresh_averages_and_optimizer_state_of_the_parts_that_move():
  state = enter_stage(_state(), ("tokenizer", "decoder"), optax.adam(1e-3))
  moving = {part: PARAMS[part] for part in ("tokenizer", "decoder")}
  _equal(state.ema, moving)
  _equal(state.opt_state, optax.adam(1e-3).init(moving))
  _equal(state.params, PARAMS)
  # The step donates its state: an average in the parameter's own buffer could not be donated beside it.
  pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((state.params, state.ema))]
  assert len(set(pointers)) == len(pointers)


def test_at_the_end_of_a_stage_the_moved_parts_take_their_averages():
  state = enter_stage(_state(), ("prior", "decoder"), optax.adam(1e-3))
  ema = {"prior": {"kernel": jnp.full(3, 7.0)}, "decoder": {"kernel": jnp.full(3, 8.0)}}
  state = state.replace(ema=ema, step=jnp.int32(5), batch_index=jnp.int32(6))
  left = leave_stage(state)
  _equal(left.params, {"tokenizer": PARAMS["tokenizer"], **ema})
  _equal(state.averaged, left.params)
  assert left.ema == {} and left.opt_state == {}
  assert (int(left.step), int(left.batch_index)) == (5, 6)


def test_the_average_is_near_the_parameters_at_first_and_then_as_slow_as_the_settings_say():
  s = small.settings(**{"optimizer.ema_decay": 0.9})
  rng, ema, expected = np.random.default_rng(0), {"kernel": np.zeros(4, np.float32)}, np.zeros(4)
  forgotten = 1.0
  for step in range(200):
    params = rng.normal(size=4).astype(np.float32)
    ema = average(ema, {"kernel": params}, s, jnp.int32(step))
    decay = min(0.9, (1 + step) / (10 + step))
    expected = decay * expected + (1 - decay) * params
    forgotten *= decay
    np.testing.assert_allclose(ema["kernel"], expected, rtol=1e-4, atol=1e-5)
    if step == 0:
      np.testing.assert_allclose(ema["kernel"], 0.9 * params, rtol=1e-5)
    if step == 9:
      assert forgotten < 1e-4  # of where the stage began


def test_parameters_optimizer_and_counters_are_of_32_bits_whatever_the_flag():
  """So that a run with JAX_ENABLE_X64=1 can go on without it."""

  def types():
    s = small.settings(**small.SHALLOW)
    stage = s.stages["joint"]

    def init(key):
      return enter_stage(fresh_state(small.omni(s).init(key)), stage.moves, make_optimizer(s.optimizer, stage))

    return jax.eval_shape(init, jax.random.key(0))

  with jax.enable_x64(True):
    assert jnp.zeros(()).dtype == jnp.float64
    double = types()
  with jax.enable_x64(False):
    single = types()
  assert {str(leaf.dtype) for leaf in jax.tree.leaves(double)} == {"float32", "int32"}
  assert jax.tree.leaves_with_path(single) == jax.tree.leaves_with_path(double)


def test_the_stage_of_a_step_is_found_and_stages_without_steps_are_passed_over():
  s = small.settings()
  steps = {"tokenizer": 3, "prior": 0, "decoder": 2, "joint": 1}
  stages = {name: dataclasses.replace(stage, steps=steps[name]) for name, stage in s.stages.items()}
  s = dataclasses.replace(s, stages=stages)
  found = [stage_at(s, step) for step in range(s.total_steps + 1)]
  assert found == [("tokenizer", 0)] * 3 + [("decoder", 3)] * 2 + [("joint", 5), (None, 6)]
  reversed_schedule = dataclasses.replace(s, schedule=("joint", "tokenizer"))
  assert [stage_at(reversed_schedule, step)[0] for step in range(3)] == ["joint", "tokenizer", "tokenizer"]


def test_parts_are_trained_once_a_stage_that_moves_them_has_begun():
  stages = [({"tokenizer": 1.0}, 10), ({"prior": 1.0, "decoder": 0.0}, 10), ({"decoder": 1.0}, 10)]
  trained = [trained_parts(stages, step) for step in (0, 1, 10, 11, 20, 21, 99)]
  two = {"tokenizer", "prior"}
  assert trained == [set(), {"tokenizer"}, {"tokenizer"}, two, two, two | {"decoder"}, two | {"decoder"}]
