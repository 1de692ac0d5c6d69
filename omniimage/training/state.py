"""The training state and what happens to it between stages."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from jax import Array

from omniimage.settings import Settings
from omniimage.systems.system import Params, Start
from omniimage.training.health import Health, fresh_health


@flax.struct.dataclass
class TrainState:
  """Everything a run is, at one step. Noise is a function of the seed and `step`, data of the seed and `batch_index`.

  Attributes:
    step: updates made, over all stages, int32.
    batch_index: next batch; `step` plus what was deliberately stepped over, int32.
    params: by part.
    ema: moving averages of the parts that move in this stage.
    opt_state: {part: optimizer state} of the same parts.
    health: what tells a bad update from a good one.
  """

  step: Array
  batch_index: Array
  params: Params
  ema: Params
  opt_state: Any
  health: Health

  @property
  def averaged(self) -> Params:
    """The parameters to sample with: averages where there are any."""
    return {**self.params, **self.ema}


def fresh_state(params: Params) -> TrainState:
  return TrainState(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), params, {}, {}, fresh_health())


def begin_with(starts: Mapping[str, Start], state: TrainState) -> TrainState:
  """A fresh state with trained models in place of fresh parameters; their averages begin there too."""
  for part, start in starts.items():
    params = start.load(state.params[part])
    ema = {part: jax.tree.map(jnp.copy, params)} if part in state.ema else {}
    state = state.replace(params={**state.params, part: params}, ema={**state.ema, **ema})
  return state


def enter_stage(state: TrainState, moves: tuple[str, ...], optimizer: optax.GradientTransformation) -> TrainState:
  """Fresh averages and optimizer state for the parts that move."""
  moving = {part: state.params[part] for part in moves}
  # Copies: the step donates its state, and one buffer cannot be donated as parameter and as average.
  return state.replace(ema=jax.tree.map(jnp.copy, moving), opt_state=_single(optimizer.init(moving)))


def leave_stage(state: TrainState) -> TrainState:
  """The moved parts take their averages, so that the next stage learns on what will be sampled with.
  Its losses are compared with none of this one's; updates skipped in a row are counted on."""
  health = fresh_health().replace(skipped_in_a_row=state.health.skipped_in_a_row)
  return state.replace(params=state.averaged, ema={}, opt_state={}, health=health)


def _single(state: Any) -> Any:
  """In float32 what JAX_ENABLE_X64 has made float64: optimizers take their constants from Python numbers."""
  return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, state)


def stage_at(settings: Settings, step: int) -> tuple[str | None, int]:
  """Name and first step of the stage that makes update `step`; None when the schedule is over."""
  return stage_of(settings.schedule, lambda name: settings.stages[name].steps, step)


def stage_of(schedule: Sequence[str], steps: Callable[[str], int], step: int) -> tuple[str | None, int]:
  """`stage_at` of a schedule whose stages have so many steps."""
  start = 0
  for name in schedule:
    stop = start + steps(name)
    if step < stop:
      return name, start
    start = stop
  return None, start


def trained_parts(stages: Iterable[tuple[Mapping[str, float], int]], step: int) -> set[str]:
  """Parts that some update before `step` has moved, of a schedule of (rates, steps)."""
  moved, start = set(), 0
  for rates, steps in stages:
    if step > start:
      moved |= {part for part, rate in rates.items() if rate > 0}
    start += steps
  return moved
