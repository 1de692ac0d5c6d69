"""The model and the step for a mesh, as the training loop runs them and as they are planned ahead of time."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from omniimage.data.batches import empty_batch
from omniimage.distributed.attention import attention_for
from omniimage.distributed.fsdp import HandGathered, scatter_at_once, scatter_by_halves
from omniimage.distributed.mesh import batch_axes, batch_sharding
from omniimage.distributed.sharding import state_shardings, unstacked_shardings
from omniimage.distributed.xla_flags import compiler_options
from omniimage.models.omni import Omni
from omniimage.sampling.autoregressive import Written, sample_token
from omniimage.sampling.grammar import Grammar
from omniimage.settings import Settings
from omniimage.training.optimizer import make_optimizer
from omniimage.training.state import TrainState, enter_stage, fresh_state
from omniimage.training.step import make_train_step

CHIPS = {"TPU v5 lite": "v5e", "TPU v5": "v5p"}  # by JAX's name, those with compiler options of their own
SLOW_SCATTER = ("TPU v5 lite",)  # no sparse cores: a reduce-scatter holds up the core


def model_for(settings: Settings, text_size: int, mesh: Mesh) -> Omni:
  """The model with the attention that suits the mesh's devices and, if the settings say so, gathered by hand."""
  by_hand = None
  if settings.gather_params == "hand":
    scatter = scatter_by_halves if mesh.devices.flat[0].device_kind in SLOW_SCATTER else scatter_at_once
    by_hand = HandGathered(mesh, settings.compute_dtype, scatter)
  attention_fn = attention_for(mesh, own_rows=by_hand is not None)
  return Omni(settings, text_size, scan=settings.scan_layers, attention_fn=attention_fn, gather_params=by_hand)


def jitted_step(omni: Omni, stage: str, start: int, mesh: Mesh, state: TrainState):
  """The step of a stage that began at update `start`, its state donated. Call or lower it under `jax.set_mesh`."""
  shardings = state_shardings(mesh, state)
  return jax.jit(
    make_train_step(omni, omni.settings.stages[stage], start, omni.gather_params),
    in_shardings=(shardings, batch_sharding(mesh)),
    out_shardings=(shardings, None),
    donate_argnums=0,
    compiler_options=_options(mesh),
  )


def abstract_state(omni: Omni, stage: str, mesh: Mesh) -> TrainState:
  """Shapes, types and places of the state in a stage."""
  row = omni.settings.stages[stage]

  def init(key):
    return enter_stage(fresh_state(omni.init(key)), row.moves, make_optimizer(omni.settings.optimizer, row))

  state = jax.eval_shape(init, jax.random.key(0))
  return jax.tree.map(_placed, state, state_shardings(mesh, state))


def abstract_batch(omni: Omni, rows: int, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes, types and places of a batch of `rows` rows."""
  row = empty_batch(1, omni.settings.data, omni.vocabulary)
  sharding = batch_sharding(mesh)
  return {
    name: jax.ShapeDtypeStruct((rows, *value.shape[1:]), value.dtype, sharding=sharding) for name, value in row.items()
  }


def abstract_sampler(settings: Settings, text_size: int, mesh: Mesh, rows: int, length: int):
  """The cached sampler's step, one code of every row, and its abstract arguments: parameters in the compute type,
  divided over `tensor`, and caches of `length` places, donated."""
  omni = Omni(settings, text_size, scan=False, attention_fn=attention_for(mesh, own_rows=False))
  dtype = jnp.dtype(settings.compute_dtype)

  def abstract(key):
    params = jax.tree.map(lambda x: x.astype(dtype), omni.view({"prior": omni.init(key)["prior"]}))
    caches = omni.prior.apply({"params": params["prior"]}, rows, length, method="init_caches")
    hidden, seen = jnp.zeros((rows, settings.prior.width), dtype), jnp.zeros((rows, length), jnp.int32)
    return params, Written(hidden, caches, seen, Grammar.start(rows)), jax.random.split(key, rows), jnp.int32(0)

  params, written, keys, index = jax.eval_shape(abstract, jax.random.key(0))
  by_rows, by_heads = batch_sharding(mesh), NamedSharding(mesh, P(batch_axes, None, "tensor", None))
  shardings = (
    {"prior": unstacked_shardings(mesh, "prior", params["prior"])},
    dataclasses.replace(
      jax.tree.map(lambda _: by_rows, written), caches=jax.tree.map(lambda _: by_heads, written.caches)
    ),
    by_rows,
    NamedSharding(mesh, P()),
  )

  def step(params, written, keys, index):
    return sample_token(omni, params, written, index, keys, settings.sampling, codes_only=True)

  jitted = jax.jit(
    step,
    in_shardings=shardings,
    out_shardings=(shardings[1], by_rows),
    donate_argnums=1,
    compiler_options=_options(mesh),
  )
  return jitted, jax.tree.map(_placed, (params, written, keys, index), shardings)


def _options(mesh: Mesh) -> dict[str, str] | None:
  return compiler_options(CHIPS.get(mesh.devices.flat[0].device_kind, "")) or None


def _placed(leaf, sharding) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
