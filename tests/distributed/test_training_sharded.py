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
from omniimage.training.state import enter_stage, fresh_state, stage_at
from omniimage.training.step import make_train_step
from omniimage.workdir import Workdir
from tests import small

STAGES = ("tokenizer", "prior", "decoder", "joint")
MESHES = {  # data, fsdp, tensor, sequence
  "data 8": MeshSettings(8, 1, 1, 1),
  "fsdp 8": MeshSettings(1, 8, 1, 1),
  "data 2, fsdp 2, tensor 2": MeshSettings(2, 2, 2, 1),
}
STEPS = 10
ROWS = 8


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """The trainer of a small run; each of its stages takes ten steps."""
  trainer = Trainer.prepare(small.settings(**small.SHALLOW), Workdir(tmp_path_factory.mktemp("run")))
  yield trainer
  trainer.checkpoints.close()


@pytest.fixture(scope="module")
def trained(prepared):
  """Ten updates of a stage on a mesh: their metrics, and the state they end with. No mesh: the step as a function."""
  settings, starts = prepared.settings, range(0, prepared.settings.total_steps, STEPS)
  batches = [prepared.batches.batch(i, ROWS) for i in range(STEPS)]

  @functools.cache
  def train(stage: str, mesh: str | None):
    row, start = settings.stages[stage], starts[STAGES.index(stage)]
    assert stage_at(settings, start) == (stage, start)
    state = fresh_state(jax.tree.map(jnp.array, small.params(prepared.omni))).replace(step=jnp.int32(start))
    state = enter_stage(state, row.moves, make_optimizer(settings.optimizer, row))
    if mesh is None:
      step, place = jax.jit(make_train_step(prepared.omni, row, start)), lambda batch: batch
    else:
      trainer = dataclasses.replace(prepared, mesh=make_mesh(MESHES[mesh]))
      state = jax.device_put(state, state_shardings(trainer.mesh, state))
      step = trainer.compile_step(state, row, start)
      place = functools.partial(global_batch, sharding=batch_sharding(trainer.mesh))
    logged = []
    for batch in batches:
      given, (state, metrics) = state, step(state, place(batch))
      logged.append({name: float(value) for name, value in metrics.items()})
    assert given.params["prior"]["norm"]["scale"].is_deleted() == (mesh is not None)  # donated
    return logged, state

  return train


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("stage", STAGES)
def test_ten_steps_of_every_stage_give_the_losses_of_one_device(trained, stage, mesh):
  expected, _ = trained(stage, None)
  logged, _ = trained(stage, mesh)
  assert [step.keys() for step in logged] == [step.keys() for step in expected]
  for name in expected[0]:
    np.testing.assert_allclose([s[name] for s in logged], [s[name] for s in expected], rtol=1e-5, err_msg=name)
  losses = [step["loss"] for step in expected]
  assert len(set(losses)) == STEPS


@pytest.mark.parametrize("mesh", MESHES)
def test_parameters_averages_and_optimizer_state_stay_divided_over_the_devices(trained, mesh):
  _, state = trained("joint", mesh)
  sizes = MESHES[mesh]
  muons = lambda path, _: "muon" in jax.tree_util.keystr(path)  # noqa: E731
  moments = optax.tree.get(state.opt_state["prior"], "mu", filtering=muons)
  for tree in (state.params["prior"], state.ema["prior"], moments):
    kernel = tree["layers"]["mlp"]["up"]["kernel"]
    layers, width, hidden = kernel.shape
    assert kernel.addressable_shards[0].data.shape == (layers, width // sizes.fsdp, hidden // sizes.tensor)
    assert len(kernel.addressable_shards) == 8


def test_a_run_begins_with_the_same_parameters_on_every_mesh(prepared):
  trainer = dataclasses.replace(prepared, mesh=make_mesh(MESHES["data 2, fsdp 2, tensor 2"]))
  begun, expected = trainer.restore_or_init()[0], jax.jit(prepared.omni.init)(jax.random.key(prepared.settings.seed))
  assert jax.tree.structure(begun.params) == jax.tree.structure(expected) and set(begun.ema) == {"tokenizer"}
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), begun.params, expected)
