"""Training on a mesh is training on one device."""

import functools

import jax
import numpy as np
import pytest

from omniimage.distributed.mesh import batch_sharding, global_batch, make_mesh
from omniimage.distributed.sharding import state_shardings
from omniimage.settings import MeshSettings
from omniimage.training.loop import Trainer
from omniimage.training.optimizer import make_optimizer
from omniimage.training.state import enter_stage, fresh_state
from tests import small

STEPS = 10
MESHES = {"data": (8, 1, 1, 1), "fsdp": (1, 8, 1, 1), "mixed": (2, 2, 2, 1)}


@functools.cache
def _start():
  s = small.settings(**{"prior.depth": 1, "decoder.depth": 1})
  model = small.omni(s)
  params = jax.tree.map(np.asarray, jax.jit(model.init)(jax.random.key(0)))
  return s, model, params, [small.batch(s, 8, index) for index in range(STEPS)]


def _train(stage_name: str, mesh: jax.sharding.Mesh):
  """The losses of ten steps, and the last state."""
  s, model, params, batches = _start()
  stage = s.stages[stage_name]
  state = enter_stage(fresh_state(params), stage.moves, make_optimizer(s.optimizer, stage))
  state = jax.device_put(state, state_shardings(mesh, state))
  trainer = Trainer(s, None, model, mesh, batches=None, checkpoints=None, sheets=None)
  step, losses = trainer.compile_step(state, stage, 0), []
  for batch in batches:
    state, metrics = step(state, global_batch(batch, batch_sharding(mesh)))
    losses.append(float(metrics["loss"]))
  return np.asarray(losses), state


@functools.cache
def _one_device(stage_name: str) -> np.ndarray:
  return _train(stage_name, make_mesh(MeshSettings(1, 1, 1, 1), jax.devices()[:1]))[0]


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("stage", ["tokenizer", "prior", "decoder", "joint"])
def test_ten_steps_on_a_mesh_give_the_losses_of_one_device(stage, mesh):
  losses, state = _train(stage, make_mesh(MeshSettings(*MESHES[mesh])))
  np.testing.assert_allclose(losses, _one_device(stage), rtol=1e-5)
  assert abs(losses[-1] / losses[0] - 1) > 1e-3, "a step that learns nothing would pass as well"
  kernel = state.params["decoder"]["layers"]["mlp"]["up"]["kernel"]
  ways = {"data": 1, "fsdp": 8, "mixed": 4}[mesh]
  assert kernel.addressable_shards[0].data.size * ways == kernel.size, "the parameters are not sharded"
