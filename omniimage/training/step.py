"""One update. Axes: B rows, A microbatches."""

import functools
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import optax

from omniimage import seeds
from omniimage.models.omni import Omni, Params
from omniimage.settings import Settings, StageSettings
from omniimage.streams import Stream, fold
from omniimage.training.health import judge
from omniimage.training.objective import Batch, Metrics, objective, teaches, totals
from omniimage.training.optimizer import make_optimizer
from omniimage.training.state import TrainState

StepFn = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


class OverRows(Protocol):
  """Runs functions on each device's own rows, where parameters are gathered by hand (`omniimage.distributed.fsdp`)."""

  def gradients(self, grad_fn: Callable) -> Callable:
    """The same losses and gradients as `grad_fn`, over all rows."""

  def sums(self, fn: Callable) -> Callable:
    """The same sums as `fn`, over all rows."""


def make_train_step(omni: Omni, stage: StageSettings, stage_start: int, over_rows: OverRows | None = None) -> StepFn:
  """The step of a stage that began at update `stage_start`: (state, batch) → (state, metrics).

  Pure: the same state and batch give the same state, on any mesh. An update that `health.judge` finds bad changes
  nothing but the counters. `over_rows` belongs to an `omni` that gathers its parameters by hand.
  """
  settings, optimizer = omni.settings, make_optimizer(omni.settings.optimizer, stage)

  def loss_fn(moving, frozen, batch, keys, layout, total):
    return objective(omni, stage, {**frozen, **moving}, batch, keys, layout, total)

  grad_fn = accumulated(jax.value_and_grad(loss_fn, has_aux=True), stage.accumulate)
  changed_fn = functools.partial(codes_changed, omni)
  if over_rows is not None:
    grad_fn, changed_fn = over_rows.gradients(grad_fn), over_rows.sums(changed_fn)

  def update(grads, stage_step, moving, ema, opt_state):
    updates, opt_state = optimizer.update(grads, opt_state, moving, stage_step=stage_step)
    moved = optax.apply_updates(moving, updates)
    return moved, average(ema, moved, settings, stage_step), opt_state

  def keep(grads, stage_step, *before):
    return before

  def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    rng = fold(seeds.key(settings.seed), Stream.UPDATES, state.step)
    keys = jax.vmap(lambda row: fold(rng, Stream.ROWS, row))(jnp.arange(batch["tokens"].shape[0]))
    layout = jax.random.randint(fold(rng, Stream.LAYOUT), (), 0, len(settings.decoder.chunk_rows))
    total = totals(batch, omni.vocabulary.codes)
    moving = {part: state.params[part] for part in stage.moves}
    frozen = {part: state.params[part] for part in state.params if part not in moving}
    (loss, metrics), grads = grad_fn(moving, frozen, batch, keys, layout, total)
    norms = {f"grad_norm/{part}": optax.tree.norm(grads[part]) for part in stage.moves}
    good, health, judged = judge(state.health, loss, norms, teaches(stage, total), settings.faults)
    # A branch: choosing between two whole states would read and write both.
    before = (moving, state.ema, state.opt_state)
    moved, ema, opt_state = jax.lax.cond(good, update, keep, grads, state.step - stage_start, *before)
    params = {**state.params, **moved}

    metrics = {"loss": loss, **metrics, **norms, **judged}
    if "tokenizer" in moved and (stage.weights.image or stage.weights.diffusion):
      changed = changed_fn(*({"tokenizer": p["tokenizer"]} for p in (state.params, params)), batch)
      metrics["codes_changed"] = changed / total["pixel"]
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

  Microbatch a takes rows a, a + A, a + 2A, …, so that each device keeps to its own rows.
  """
  if microbatches == 1:
    return grad_fn

  def split(x):
    return jnp.moveaxis(x.reshape(-1, microbatches, *x.shape[1:]), 1, 0)

  def summed(moving, frozen, batch, keys, *shared):
    def share(part):
      return grad_fn(moving, frozen, *part, *shared)

    parts = jax.tree.map(split, (batch, keys))
    first = jax.tree.map(lambda x: x[0], parts)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(share, first))
    return jax.lax.scan(lambda carry, part: (jax.tree.map(jnp.add, carry, share(part)), None), zeros, parts)[0]

  return summed


def codes_changed(omni: Omni, old: Params, new: Params, batch: Batch):
  """Share of image codes that an update changed, summed over images: how fast the prior's targets move under it."""
  images = omni.shrink(batch["images"].astype(jnp.float32) / 127.5 - 1)
  before, after = (omni.encode(omni.view(params), images).codes for params in (old, new))
  changed = jnp.mean(before != after, axis=(-2, -1))
  return jnp.sum(changed * batch["image_mask"])
