"""Training on eight simulated devices is training on one: the trainer's own step and shardings, all four stages."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from omniimage.distributed.mesh import batch_sharding, global_batch, make_mesh
from omniimage.distributed.sharding import state_shardings
from omniimage.settings import MeshSettings
from omniimage.training.loop import Trainer
from omniimage.training.optimizer import make_optimizer
from omniimage.training.state import enter_stage, fresh_state
from omniimage.workdir import Workdir
from tests import small

STAGES = ("tokenizer", "prior", "decoder", "joint")
MESHES = {  # data, fsdp, tensor, sequence
  "data 8": MeshSettings(8, 1, 1, 1),
  "fsdp 8": MeshSettings(1, 8, 1, 1),
  "data 2, fsdp 2, tensor 2": MeshSettings(2, 2, 2, 1),
}
ONE_DEVICE = MeshSettings(1, 1, 1, 1)
STEPS = 10
ROWS = 8


@pytest.fixture(scope="module")
def on_mesh(tmp_path_factory):
  """The trainer of a small run, on any mesh."""
  trainer = Trainer.prepare(small.settings(**small.SHALLOW), Workdir(tmp_path_factory.mktemp("run")))

  def on_mesh(mesh: MeshSettings) -> Trainer:
    devices = jax.devices()[:1] if mesh == ONE_DEVICE else None
    return dataclasses.replace(trainer, mesh=make_mesh(mesh, devices))

  yield on_mesh
  trainer.checkpoints.close()


@pytest.fixture(scope="module")
def trained(on_mesh):
  """Ten updates of a stage on a mesh: their metrics, and the state they end with."""

  @functools.cache
  def batches():
    return [on_mesh(ONE_DEVICE).batches.batch(i, ROWS) for i in range(STEPS)]

  @functools.cache
  def train(stage: str, mesh: MeshSettings):
    trainer = on_mesh(mesh)
    row = trainer.settings.stages[stage]
    params = jax.tree.map(jnp.array, small.params(trainer.omni))
    state = enter_stage(fresh_state(params), row.moves, make_optimizer(trainer.settings.optimizer, row))
    state = jax.device_put(state, state_shardings(trainer.mesh, state))
    step, logged = trainer.compile_step(state, row, 0), []
    for batch in batches():
      given = state
      state, metrics = step(given, global_batch(batch, batch_sharding(trainer.mesh)))
      logged.append({name: float(value) for name, value in metrics.items()})
    assert given.params["prior"]["norm"]["scale"].is_deleted()  # donated
    return logged, state

  return train


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("stage", STAGES)
def test_ten_steps_of_every_stage_give_the_losses_of_one_device(trained, stage, mesh):
  expected, _ = trained(stage, ONE_DEVICE)
  logged, _ = trained(stage, MESHES[mesh])
  assert [step.keys() for step in logged] == [step.keys() for step in expected]
  for name in expected[0]:
    np.testing.assert_allclose([s[name] for s in logged], [s[name] for s in expected], rtol=1e-5, err_msg=name)
  losses = [step["loss"] for step in expected]
  assert len(set(losses)) == STEPS


@pytest.mark.parametrize("mesh", MESHES)
def test_parameters_averages_and_optimizer_state_stay_divided_over_the_devices(trained, mesh):
  _, state = trained("joint", MESHES[mesh])
  sizes = MESHES[mesh]
  moments = optax.tree.get(state.opt_state["prior"], "mu")
  for tree in (state.params["prior"], state.ema["prior"], moments):
    kernel = tree["layers"]["mlp"]["up"]["kernel"]
    layers, width, hidden = kernel.shape
    assert kernel.addressable_shards[0].data.shape == (layers, width // sizes.fsdp, hidden // sizes.tensor)
    assert len(kernel.addressable_shards) == 8


def test_a_run_begins_with_the_same_parameters_on_every_mesh(on_mesh):
  states = [on_mesh(mesh).restore_or_init()[0] for mesh in (ONE_DEVICE, MESHES["data 2, fsdp 2, tensor 2"])]
  one, other = (jax.device_get(state) for state in states)
  assert jax.tree.structure(one) == jax.tree.structure(other)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), one, other)
  assert set(one.ema) == {"tokenizer"}
