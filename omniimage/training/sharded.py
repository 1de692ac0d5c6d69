"""The system and the step for a mesh, as the training loop runs them and as they are planned ahead of time."""

import dataclasses

import jax
from jax.sharding import Mesh

from omniimage.distributed.fsdp import HandGathered, scatter_at_once, scatter_by_halves
from omniimage.distributed.kernels import kernels_for
from omniimage.distributed.mesh import batch_sharding
from omniimage.distributed.sharding import state_shardings
from omniimage.distributed.xla_flags import compiler_options
from omniimage.models.compute_type import compute_type
from omniimage.settings import Settings, require
from omniimage.systems import open_system, system_named
from omniimage.systems.system import Sampler, System, rules_of
from omniimage.training.optimizer import make_optimizer
from omniimage.training.state import TrainState, enter_stage, fresh_state
from omniimage.training.step import make_train_step

CHIPS = {"TPU v5 lite": "v5e", "TPU v5": "v5p"}  # by JAX's name, those with compiler options of their own
SLOW_SCATTER = ("TPU v5 lite",)  # no sparse cores: a reduce-scatter holds up the core


def system_for(settings: Settings, text_size: int, mesh: Mesh) -> System:
  """The system with the type and the kernels that suit the mesh's devices and, if the settings say so, gathered by
  hand."""
  settings = dataclasses.replace(settings, compute_dtype=compute_type(settings.compute_dtype, mesh.devices.flat[0]))
  by_hand = None
  if settings.gather_params == "hand":
    scatter = scatter_by_halves if mesh.devices.flat[0].device_kind in SLOW_SCATTER else scatter_at_once
    by_hand = HandGathered(mesh, rules_of(system_named(settings.system)), settings.compute_dtype, scatter)
  return open_system(settings, text_size, kernels=kernels_for(mesh, by_hand is not None), gather_params=by_hand)


def jitted_step(system: System, stage: str, start: int, mesh: Mesh, state: TrainState):
  """The step of a stage that began at update `start`, its state donated. Call or lower it under `jax.set_mesh`.

  It is compiled once for each size of images that batches have.
  """
  shardings = state_shardings(mesh, rules_of(system), state)
  return jax.jit(
    make_train_step(system, system.settings.stages[stage], start),
    in_shardings=(shardings, batch_sharding(mesh)),
    out_shardings=(shardings, None),
    donate_argnums=0,
    compiler_options=_options(mesh),
  )


def abstract_state(system: System, stage: str, mesh: Mesh) -> TrainState:
  """Shapes, types and places of the state in a stage."""
  row = system.settings.stages[stage]

  def init(key):
    return enter_stage(fresh_state(system.init(key)), row.moves, make_optimizer(system.settings.optimizer, row))

  state = jax.eval_shape(init, jax.random.key(0))
  return jax.tree.map(_placed, state, state_shardings(mesh, rules_of(system), state))


def abstract_batch(system: System, stage: str, rows: int, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes, types and places of a stage's batch of `rows` rows, of the largest bucket: a plan is of one compiled
  step."""
  sharding, coded = batch_sharding(mesh), system.reads_codes(system.settings.stages[stage])
  return {
    name: jax.ShapeDtypeStruct((rows, *value.shape[1:]), value.dtype, sharding=sharding)
    for name, value in system.empty_batch(1, system.settings.largest_bucket, coded).items()
  }


def sampler_of(settings: Settings, text_size: int, mesh: Mesh, rows: int, length: int) -> Sampler:
  """One token of every row, written to caches of `length` places. SettingsError if the system writes none."""
  sampler = _gathered(settings, text_size, mesh).sampler(mesh, rows, length)
  require(sampler is not None, f"config.system={settings.system!r} writes no tokens that could be planned")
  return sampler


def painter_of(settings: Settings, text_size: int, mesh: Mesh, rows: int) -> Sampler:
  """One chunk of every row. SettingsError if the system paints none."""
  painter = _gathered(settings, text_size, mesh).painter(mesh, rows)
  require(painter is not None, f"config.system={settings.system!r} paints no chunks that could be planned")
  return painter


def abstract_sampler(sampler: Sampler, mesh: Mesh):
  """Its jitted step and its abstract arguments, of which what has been written is donated."""
  jitted = jax.jit(
    sampler.step,
    in_shardings=sampler.shardings,
    out_shardings=(sampler.shardings[1], batch_sharding(mesh)),
    donate_argnums=1,
    compiler_options=_options(mesh),
  )
  return jitted, jax.tree.map(_placed, sampler.arguments, sampler.shardings)


def _gathered(settings: Settings, text_size: int, mesh: Mesh) -> System:
  return system_for(dataclasses.replace(settings, gather_params="compiler"), text_size, mesh)  # hands are for batches


def _options(mesh: Mesh) -> dict[str, str] | None:
  return compiler_options(CHIPS.get(mesh.devices.flat[0].device_kind, "")) or None


def _placed(leaf, sharding) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
