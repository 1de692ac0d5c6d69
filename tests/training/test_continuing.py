"""What may change in the config of a run that goes on."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage import versions
from omniimage.checkpoint import Checkpoints, by_path
from omniimage.errors import CheckpointError, UserError
from omniimage.systems.omni import OmniSystem
from omniimage.training.continuing import check_config, check_schedule, log_changes, restore
from omniimage.training.state import TrainState, fresh_state
from tests import small

STORED = small.config().to_dict()
END = 40  # four stages of ten steps: tokenizer, prior, decoder, joint


def changed(**changes):
  return small.config(**changes).to_dict()


def test_the_same_config_says_nothing(caplog):
  check_config(OmniSystem, STORED, copy.deepcopy(STORED), "runs/a", END)
  log_changes(STORED, copy.deepcopy(STORED))
  assert not caplog.records


@pytest.mark.parametrize(
  "changes", [{"prior.depth": 3}, {"tokenizer.levels": (4, 4)}, {"data.image_size": 24}, {"decoder.patch_size": 8}]
)
def test_another_model_is_an_error_that_names_what_differs(changes):
  ((path, value),) = changes.items()
  with pytest.raises(UserError, match=f"runs/a was trained with another model: {path} is .* there and ") as error:
    check_config(OmniSystem, STORED, changed(**changes), "runs/a", END)
  assert repr(value) in str(error.value) and "\n" not in str(error.value)


def test_a_key_that_one_of_them_lacks_is_named():
  given = copy.deepcopy(STORED)
  del given["prior"]["qk_norm"]
  with pytest.raises(UserError, match=r"prior\.qk_norm is True there and not set here"):
    check_config(OmniSystem, STORED, given, "runs/a", END)


def test_the_layouts_are_free_until_the_painter_has_learnt_them():
  given, longer = changed(**{"decoder.chunk_rows": (1,)}), changed(**{"stages.prior.steps": 99})
  check_config(OmniSystem, STORED, given, "runs/a", step=20)
  with pytest.raises(UserError, match=r"another model: decoder\.chunk_rows is "):
    check_config(OmniSystem, STORED, {**given, "stages": longer["stages"]}, "runs/a", step=21)
  with pytest.raises(UserError, match=r"another model: decoder\.depth is "):
    check_config(OmniSystem, STORED, changed(**{"decoder.depth": 3}), "runs/a", step=0)


def test_what_input_images_are_read_as_is_free_until_the_prior_has_learnt_to_read():
  given = changed(**{"prior.input_images": "both"})
  check_config(OmniSystem, STORED, given, "runs/a", step=10)
  with pytest.raises(UserError, match=r"another model: prior\.input_images is 'codes' there and 'both' here"):
    check_config(OmniSystem, STORED, given, "runs/a", step=11)


def test_schedules_logging_and_mesh_may_change_and_it_is_logged(caplog):
  given = changed(**{"stages.prior.steps": 99, "run.log_every": 7, "mesh.fsdp": 2, "optimizer.b2": 0.9})
  check_config(OmniSystem, STORED, given, "runs/a", END)
  log_changes(STORED, given)
  text = caplog.text
  assert "stages.prior.steps is 10 there and 99 here" in text and "run.log_every" in text and "mesh.fsdp" in text


def test_where_a_vocabulary_lies_may_change():
  check_config(OmniSystem, STORED, changed(**{"data.vocabulary": "moved/tokenizer.json"}), "runs/a", END)


# Four stages of ten steps: tokenizer, prior, decoder, joint.
@pytest.mark.parametrize(
  "step, changes, here",
  [
    (
      6,
      {"stages.tokenizer.steps": 4},
      "in tokenizer there and in prior here: stages.tokenizer.steps is 10 there and 4",
    ),
    (6, {"stages.tokenizer.steps": 6}, "in tokenizer there and in prior here"),
    (6, {"stages.tokenizer.steps": 0}, "in tokenizer there and in prior here"),
    (
      10,
      {"stages.tokenizer.steps": 20},
      "in prior there and in tokenizer here: stages.tokenizer.steps is 10 there and 20",
    ),
    (15, {"stages.tokenizer.steps": 20}, "in prior there and in tokenizer here"),
    (35, {f"stages.{name}.steps": 2 for name in STORED["stages"]}, "in joint there and behind the end here"),
    (15, {"schedule": ("tokenizer", "decoder")}, "in prior there and in decoder here: schedule is "),
  ],
)
def test_a_schedule_that_does_not_fit_the_step_is_an_error_that_says_what_to_do(step, changes, here):
  with pytest.raises(UserError, match=f"runs/a: the schedule no longer fits step {step}, which is {here}") as error:
    check_schedule(STORED, changed(**changes), step, "runs/a")
  assert "needs more steps than it has made" in str(error.value) and "another workdir" in str(error.value)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  "step, changes",
  [
    (6, {}),
    (6, {"stages.tokenizer.steps": 7}),
    (6, {"stages.tokenizer.steps": 70, "stages.prior.steps": 3}),
    (15, {"stages.prior.steps": 70}),
    (6, {"schedule": ("tokenizer", "joint")}),
    (40, {"schedule": ("tokenizer", "prior", "decoder", "joint", "decoder")}),
    (40, {"stages.joint.steps": 5}),  # there is nothing left to do
    (6, {"stages.tokenizer.rates.tokenizer": 1e-5, "optimizer.muon_rms": 0.5}),
  ],
)
def test_a_schedule_that_fits_the_step_may_change_elsewhere(step, changes):
  check_schedule(STORED, changed(**changes), step, "runs/a")


def test_the_last_stage_of_a_finished_run_cannot_be_made_longer():
  with pytest.raises(UserError, match="the run had ended at step 40, and its optimizer with it; joint cannot go on"):
    check_schedule(STORED, changed(**{"stages.joint.steps": 11}), 40, "runs/a")


@pytest.mark.parametrize(
  "changes, said",
  [
    (
      {"stages.joint.rates.tokenizer": 0.0},
      "decoder and prior and tokenizer moved by Muon and AdamW there and decoder and prior moved",
    ),
    (
      {"optimizer.muon_rms": 0.0},
      "moved by Muon and AdamW there and decoder and prior and tokenizer moved by AdamW here",
    ),
  ],
)
def test_what_an_optimizer_was_made_for_cannot_change_in_the_middle_of_a_stage(changes, said):
  with pytest.raises(UserError, match=rf"runs/a is in the middle of joint, with .*{said}") as error:
    check_schedule(STORED, changed(**changes), 35, "runs/a")
  assert "another workdir" in str(error.value)
  check_schedule(STORED, changed(**changes), 40, "runs/a")


def a_state(step: int) -> TrainState:
  params = {"prior": {"kernel": jnp.arange(8.0) + step}}
  return fresh_state(params).replace(step=jnp.int32(step), ema=params)


@pytest.fixture
def checkpoints(tmp_path):
  made = Checkpoints(tmp_path, keep=3)
  yield made
  made.close()


def test_a_state_without_health_of_an_older_version_goes_on_with_a_fresh_one(checkpoints, caplog):
  arrays = {path: leaf for path, leaf in by_path(a_state(7)).items() if not path.startswith("health")}
  checkpoints.save(7, arrays, {})
  checkpoints.wait()
  place = jax.sharding.SingleDeviceSharding(jax.devices()[1])
  wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), a_state(0))
  restored = restore(checkpoints, 7, wanted, lambda: a_state(0))
  jax.tree.map(np.testing.assert_array_equal, restored, a_state(7))
  assert {leaf.sharding for leaf in jax.tree.leaves(restored)} == {place}
  assert "of step 7 does not have it: health/losses, health/skipped_in_a_row" in caplog.text
  checkpoints.save(8, arrays, versions.stamped({}))
  checkpoints.wait()
  with pytest.raises(CheckpointError, match="lacks health/losses"):
    restore(checkpoints, 8, wanted, lambda: a_state(0))


def test_a_state_of_this_version_comes_back(checkpoints, caplog):
  checkpoints.save(7, a_state(7), versions.stamped({}))
  checkpoints.wait()
  wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), a_state(0))
  restored = restore(checkpoints, 7, wanted, lambda: a_state(0))
  assert jax.tree.structure(restored) == jax.tree.structure(wanted)
  jax.tree.map(np.testing.assert_array_equal, restored, a_state(7))
  assert not caplog.records


def test_of_a_part_that_is_not_trained_arrays_may_come_and_go(checkpoints, caplog):
  def with_adapter(step):
    state = a_state(step)
    params = {"prior": {**state.params["prior"], "adapter": jnp.arange(2.0) - step}}
    return state.replace(params=params, ema=params)

  checkpoints.save(7, a_state(7), versions.stamped({}))
  checkpoints.save(8, with_adapter(8), versions.stamped({}))
  checkpoints.wait()
  abstract = lambda state: jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)  # noqa: E731
  for kind, path in (("params", 7), ("ema", 7)):
    added = restore(checkpoints, path, abstract(with_adapter(0)), lambda: with_adapter(0), {"prior"})
    tree = getattr(added, kind)["prior"]
    np.testing.assert_array_equal(tree["adapter"], [0, 1])
    np.testing.assert_array_equal(tree["kernel"], np.arange(8.0) + 7)
  assert "does not have it: " in caplog.text and "params/prior/adapter" in caplog.text
  taken = restore(checkpoints, 8, abstract(a_state(0)), lambda: a_state(0), {"prior"})
  jax.tree.map(np.testing.assert_array_equal, taken, a_state(8))
  for step, wanted in ((7, with_adapter(0)), (8, a_state(0))):
    with pytest.raises(CheckpointError, match="prior/adapter"):
      restore(checkpoints, step, abstract(wanted), lambda wanted=wanted: wanted, {"decoder"})
