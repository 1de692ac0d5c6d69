"""One update. Axes: B rows, A microbatches."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from omniimage.models.omni import Omni, Params
from omniimage.settings import Settings, StageSettings
from omniimage.training.objective import Batch, Metrics, objective, totals
from omniimage.training.optimizer import make_optimizer
from omniimage.training.state import TrainState

StepFn = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_step(omni: Omni, stage: StageSettings, stage_start: int) -> StepFn:
  """The step of a stage that began at update `stage_start`: (state, batch) → (state, metrics).

  Pure: the same state and batch give the same state, on any mesh.
  """
  settings, optimizer = omni.settings, make_optimizer(omni.settings.optimizer, stage)

  def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    rng = jax.random.fold_in(jax.random.key(settings.seed), state.step)
    rows = jnp.arange(batch["tokens"].shape[0])
    keys = jax.vmap(jax.random.fold_in, (None, 0))(rng, rows)
    layout = jax.random.randint(rng, (), 0, len(settings.decoder.chunk_rows))
    total = totals(batch, omni.vocabulary.codes)
    moving = {part: state.params[part] for part in stage.moves}

    def loss_fn(moving, batch, keys):
      return objective(omni, stage, {**state.params, **moving}, batch, keys, layout, total)

    (loss, metrics), grads = accumulated(jax.value_and_grad(loss_fn, has_aux=True), stage.accumulate)(
      moving, batch, keys
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, moving)
    moved = optax.apply_updates(moving, updates)
    ema = average(state.ema, moved, settings, state.step - stage_start)
    params = {**state.params, **moved}

    metrics = {"loss": loss, **metrics}
    metrics |= {f"grad_norm/{part}": optax.tree.norm(grads[part]) for part in stage.moves}
    if "tokenizer" in moved and (stage.weights.image or stage.weights.diffusion):
      metrics["codes_changed"] = codes_changed(omni, state.params, params, batch)
    state = state.replace(
      step=state.step + 1, batch_index=state.batch_index + 1, params=params, ema=ema, opt_state=opt_state
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

  def summed(params, batch, keys):
    parts = jax.tree.map(split, (batch, keys))
    first = jax.tree.map(lambda x: x[0], parts)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(grad_fn, params, *first))
    add = lambda carry, part: (jax.tree.map(jnp.add, carry, grad_fn(params, *part)), None)  # noqa: E731
    return jax.lax.scan(add, zeros, parts)[0]

  return summed


def codes_changed(omni: Omni, old: Params, new: Params, batch: Batch):
  """Share of image codes that this update changed: how fast the prior's targets move under it."""
  images = omni.shrink(batch["images"].astype(jnp.float32) / 127.5 - 1)
  before, after = (omni.encode(omni.view(params), images)[1] for params in (old, new))
  changed = jnp.mean(before != after, axis=(-2, -1))
  return jnp.sum(changed * batch["image_mask"]) / jnp.maximum(jnp.sum(batch["image_mask"]), 1)
