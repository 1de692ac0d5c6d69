"""Training on eight simulated devices is training on one: the trainer's own step and shardings."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from omniimage import seeds
from omniimage.distributed.mesh import batch_sharding, global_batch, make_mesh
from omniimage.distributed.sharding import state_shardings
from omniimage.settings import MeshSettings
from omniimage.streams import Stream, fold
from omniimage.systems.omni import OmniSystem
from omniimage.systems.system import rules_of
from omniimage.training.loop import Trainer
from omniimage.training.optimizer import make_optimizer
from omniimage.training.sharded import jitted_step, system_for
from omniimage.training.state import enter_stage, fresh_state, stage_at
from omniimage.training.step import make_train_step
from omniimage.workdir import Workdir
from tests import small

STAGES = ("tokenizer", "prior", "decoder", "joint")
MESHES = {  # data, fsdp, tensor, sequence; by whom parameters are gathered
  "data 8": (MeshSettings(8, 1, 1, 1), "compiler"),
  "fsdp 8": (MeshSettings(1, 8, 1, 1), "compiler"),
  "data 2, fsdp 4, by hand": (MeshSettings(2, 4, 1, 1), "hand"),
  "fsdp 2, tensor 2, sequence 2": (MeshSettings(1, 2, 2, 2), "compiler"),
}
EIGHT_HEADS = {  # so that tensor=8 divides them
  **{f"{part}.heads": 8 for part in OmniSystem.parts},
  **{"prior.kv_heads": 8, "prior.head_width": 4, "decoder.kv_heads": 8},
}
SHAPES = [shape for shape in itertools.product((1, 2, 4, 8), repeat=4) if math.prod(shape) == 8]
STEPS = 10
ROWS = 8


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """The trainer of a small run; each of its stages takes ten steps."""
  trainer = Trainer.prepare(small.config(**small.SHALLOW), Workdir(tmp_path_factory.mktemp("run")))
  yield trainer
  trainer.checkpoints.close()


def on(prepared, shape: MeshSettings, gather: str) -> Trainer:
  """The same run on another mesh."""
  settings = dataclasses.replace(prepared.settings, mesh=shape, gather_params=gather)
  mesh = make_mesh(shape)
  return dataclasses.replace(
    prepared, settings=settings, mesh=mesh, system=system_for(settings, small.text_tokenizer().size, mesh)
  )


@pytest.fixture(scope="module")
def trained(prepared):
  """Ten updates of a stage on a mesh: their metrics, and the state they end with. No mesh: the step as a function."""
  settings, starts = prepared.settings, range(0, prepared.settings.total_steps, STEPS)
  batches = [prepared.batches.batch(i, ROWS) for i in range(STEPS)]
  plain = small.system(settings)

  @functools.cache
  def train(stage: str, mesh: str | None):
    row, start = settings.stages[stage], starts[STAGES.index(stage)]
    assert stage_at(settings, start) == (stage, start)
    state = fresh_state(jax.tree.map(jnp.array, small.params(plain))).replace(step=jnp.int32(start))
    state = enter_stage(state, row.moves, make_optimizer(settings.optimizer, row))
    if mesh is None:
      step, place = jax.jit(make_train_step(plain, row, start)), lambda batch: batch
    else:
      trainer = on(prepared, *MESHES[mesh])
      state = jax.device_put(state, state_shardings(trainer.mesh, rules_of(trainer.system), state))
      step = trainer.compile_step(state, stage, start)
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


@pytest.fixture(scope="module")
def first_gradients(prepared):
  """Losses of the joint stage's first step on a mesh, and every part's gradient, read off a first moment of Adam."""
  given = small.settings(**small.SHALLOW, **EIGHT_HEADS)
  row = dataclasses.replace(given.stages["joint"], warmup_steps=0)
  optimizer = dataclasses.replace(given.optimizer, muon_rms=0.0, clip_norm=1e9)
  settings = dataclasses.replace(given, optimizer=optimizer, stages={"joint": row}, schedule=("joint",))

  def step(shape: MeshSettings | None, gather: str = "compiler"):
    trainer = on(dataclasses.replace(prepared, settings=settings), shape or MeshSettings(8, 1, 1, 1), gather)
    system = trainer.system if shape else small.system(settings)
    state = fresh_state(jax.tree.map(jnp.array, small.params(small.omni(settings))))
    state, batch = enter_stage(state, row.moves, make_optimizer(optimizer, row)), prepared.batches.batch(0, ROWS)
    if shape is None:
      state, metrics = jax.jit(make_train_step(system, row, 0))(state, batch)
    else:
      state = jax.device_put(state, state_shardings(trainer.mesh, rules_of(trainer.system), state))
      with jax.set_mesh(trainer.mesh):
        batch = global_batch(batch, batch_sharding(trainer.mesh))
        state, metrics = jitted_step(system, "joint", 0, trainer.mesh, state)(state, batch)
    moments = {part: optax.tree.get(state.opt_state[part], "mu") for part in row.moves}
    return jax.tree.map(np.asarray, (metrics, moments))

  return functools.cache(step)


# Twenty programs are compiled here: that every shape agrees is the promise.
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape_of_the_mesh_gives_the_losses_and_gradients_of_one_device(first_gradients, shape):
  same_as_one_device(first_gradients, MeshSettings(*shape), "compiler")


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[2] == shape[3] == 1], ids=str)
def test_gathering_by_hand_gives_the_losses_and_gradients_of_one_device(first_gradients, shape):
  same_as_one_device(first_gradients, MeshSettings(*shape), "hand")


def same_as_one_device(first_gradients, shape: MeshSettings, gather: str):
  expected_metrics, expected = first_gradients(None)
  metrics, moments = first_gradients(shape, gather)
  for name, value in expected_metrics.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)

  def close(path, gradient, one_device):
    """Relative to the whole array: single elements are small differences of large sums."""
    distance, size = np.linalg.norm(gradient - one_device), np.linalg.norm(one_device)
    assert distance <= 3e-5 * size, (jax.tree_util.keystr(path), distance, size)

  jax.tree.map_with_path(close, moments, expected)


@pytest.mark.parametrize("mesh", MESHES)
def test_parameters_averages_and_optimizer_state_stay_divided_over_the_devices(trained, mesh):
  _, state = trained("joint", mesh)
  sizes, _ = MESHES[mesh]
  muons = lambda path, _: "muon" in jax.tree_util.keystr(path)  # noqa: E731
  moments = optax.tree.get(state.opt_state["prior"], "mu", filtering=muons)
  for tree in (state.params["prior"], state.ema["prior"], moments):
    kernel = tree["layers"]["mlp"]["up"]["kernel"]
    layers, width, hidden = kernel.shape
    assert kernel.addressable_shards[0].data.shape == (layers, width // sizes.fsdp, hidden // sizes.tensor)
    assert len(kernel.addressable_shards) == 8


def test_a_run_begins_with_the_same_parameters_on_every_mesh(prepared):
  trainer = on(prepared, *MESHES["fsdp 2, tensor 2, sequence 2"])
  begun = trainer.restore_or_init()
  expected = jax.jit(small.omni(prepared.settings).init)(fold(seeds.key(prepared.settings.seed), Stream.PARAMETERS))
  assert jax.tree.structure(begun.params) == jax.tree.structure(expected) and set(begun.ema) == {"tokenizer"}
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), begun.params, expected)
