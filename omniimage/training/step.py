"""One update. Axes: B rows, A microbatches."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from omniimage import seeds
from omniimage.data.batches import Batch
from omniimage.models.compute_type import compute_type
from omniimage.settings import Settings, StageSettings
from omniimage.streams import Stream, fold
from omniimage.systems.system import Metrics, Params, System, rules_of
from omniimage.training.health import judge
from omniimage.training.optimizer import make_optimizer
from omniimage.training.state import TrainState

StepFn = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_step(system: System, stage: StageSettings, stage_start: int) -> StepFn:
  """The step of a stage that began at update `stage_start`: (state, batch) → (state, metrics).

  Pure: the same state and batch give the same state, on any mesh. An update that `health.judge` finds bad changes
  nothing but the counters.
  """
  settings = system.settings
  dtype = jnp.dtype(compute_type(settings.compute_dtype))
  optimizer = make_optimizer(settings.optimizer, stage, rules_of(system), dtype)

  def loss_fn(moving, frozen, rows, shared):
    return system.losses(stage, {**frozen, **moving}, *rows, *shared)

  grad_fn = accumulated(jax.value_and_grad(loss_fn, has_aux=True), stage.accumulate)
  observed = system.observed
  if system.gather_params is not None:
    grad_fn, observed = system.gather_params.gradients(grad_fn), system.gather_params.sums(observed)

  def update(grads, stage_step, moving, ema, opt_state):
    updates, opt_state = optimizer.update(grads, opt_state, moving, stage_step=stage_step)
    moved = optax.apply_updates(moving, updates)
    return moved, average(ema, moved, settings, stage_step), opt_state

  def keep(grads, stage_step, *before):
    return before

  def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    rng = fold(seeds.key(settings.seed), Stream.UPDATES, state.step)
    keys = jax.vmap(lambda row: fold(rng, Stream.ROWS, row))(jnp.arange(jax.tree.leaves(batch)[0].shape[0]))
    totals = system.totals(batch)
    moving = {part: state.params[part] for part in stage.moves}
    frozen = {part: state.params[part] for part in state.params if part not in moving}
    (loss, metrics), grads = grad_fn(moving, frozen, (batch, keys), (system.shared_draws(rng), totals))
    norms = {f"grad_norm/{part}": optax.tree.norm(grads[part]) for part in stage.moves}
    good, health, judged = judge(state.health, loss, norms, system.teaches(stage, totals), settings.faults)
    # A branch: choosing between two whole states would read and write both.
    before = (moving, state.ema, state.opt_state)
    moved, ema, opt_state = jax.lax.cond(good, update, keep, grads, state.step - stage_start, *before)
    params = {**state.params, **moved}

    metrics = {"loss": loss, **metrics, **norms, **judged}
    watched = system.watches(stage)
    if watched:
      metrics |= observed(*({part: p[part] for part in watched} for p in (state.params, params)), batch, totals)
    state = state.replace(
      step=state.step + 1,
      batch_index=state.batch_index + 1,
      params=params,
      ema=ema,
      opt_state=opt_state,
      health=health,
    )
    return state, metrics

  return train_step


def average(ema: Params, params: Params, settings: Settings, step) -> Params:
  """Exponential moving average; its memory grows with the stage, so that it forgets where the stage began."""
  decay = jnp.minimum(settings.optimizer.ema_decay, (1.0 + step) / (10.0 + step))
  return jax.tree.map(lambda old, new: old + (1 - decay) * (new - old), ema, params)


def accumulated(grad_fn: Callable, microbatches: int) -> Callable:
  """Sums ((loss, metrics), gradients) over microbatches; they must be shares of the whole batch's.

  `grad_fn` is a function of (moving, frozen, rows, shared), where `rows` is a tree of arrays with one entry a row.
  Microbatch a takes rows a, a + A, a + 2A, …, so that each device keeps to its own rows.
  """
  if microbatches == 1:
    return grad_fn

  def split(x):
    return jnp.moveaxis(x.reshape(-1, microbatches, *x.shape[1:]), 1, 0)

  def summed(moving, frozen, rows, shared):
    def share(some):
      return grad_fn(moving, frozen, some, shared)

    parts = jax.tree.map(split, rows)
    first = jax.tree.map(lambda x: x[0], parts)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(share, first))
    return jax.lax.scan(lambda carry, part: (jax.tree.map(jnp.add, carry, share(part)), None), zeros, parts)[0]

  return summed
