"""Ways to walk the path from noise to an image, given what the network expects at its end.

x_t = (1 − t)·ε + t·x, as of `omniimage.models.flow`; a step towards x̂ is exact as long as x̂ does not change, and the
last one, to t = 1, is x̂. Heun asks twice a step and averages the velocities (Karras et al. 2022, arXiv 2206.00364, with
an x̂ of its own); "multistep" is DPM-Solver++(2M) (Lu et al. 2022, 2211.01095), which asks once and goes on from how x̂
has changed since the step before. "mean" is for a network that was taught to (`omniimage.systems.omni_painting`): it
tells how far the step goes, and what is predicted is where the path leads, not where it points.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from omniimage.models.flow import velocity

# (x_t, t, what is carried along and, of "mean", how far a step goes) → x̂, and what is carried on.
Predict = Callable[..., tuple[Array, Any]]


def times(steps: int, shift: float = 1.0) -> np.ndarray:
  """(steps + 1,) from 0 to 1. A shift above 1 spends more of the steps near the noise, where a larger picture, whose
  neighbors say more of each other, is decided: σ → shift·σ / (1 + (shift − 1)·σ) of σ = 1 − t (Esser et al. 2024, arXiv
  2403.03206)."""
  noise = 1 - np.arange(steps + 1) / steps
  return 1 - shift * noise / (1 + (shift - 1) * noise)


def _euler(predict: Predict, x: Array, along: np.ndarray, carried: Any, tells: bool = False) -> tuple[Array, Any]:
  def step(state, now):
    (x, carried), (t, following) = state, now
    predicted, carried = predict(x, t, carried, following - t) if tells else predict(x, t, carried)
    return (_advanced(predicted, x, t, following), carried), None

  return jax.lax.scan(step, (x, carried), _pairs(along))[0]


def _heun(predict: Predict, x: Array, along: np.ndarray, carried: Any) -> tuple[Array, Any]:
  def step(state, now):
    (x, carried), (t, following) = state, now
    predicted, carried = predict(x, t, carried)
    begun = velocity(predicted, x, t)
    ahead = x + (following - t) * begun
    predicted, carried = predict(ahead, following, carried)
    return (x + (following - t) * (begun + velocity(predicted, ahead, following)) / 2, carried), None

  (x, carried), _ = jax.lax.scan(step, (x, carried), _pairs(along[:-1]))
  return predict(x, jnp.float32(along[-2]), carried)  # to the end from where velocities have no denominator left


def _multistep(predict: Predict, x: Array, along: np.ndarray, carried: Any) -> tuple[Array, Any]:
  def step(state, now):
    (x, before, carried), (t, following, share) = state, now
    predicted, carried = predict(x, t, carried)
    expected = predicted + share * (predicted - before)
    return (_advanced(expected, x, t, following), predicted, carried), None

  start = x, jnp.zeros_like(x), carried
  (x, _, carried), _ = jax.lax.scan(step, start, (*_pairs(along), jnp.asarray(_shares(along), jnp.float32)))
  return x, carried


# As omniimage.settings names them.
SOLVERS = {
  "euler": _euler,
  "heun": _heun,
  "multistep": _multistep,
  "mean": functools.partial(_euler, tells=True),
}


def walk(predict: Predict, noise: Array, steps: int, solver: str, shift: float, carried: Any = ()) -> tuple[Array, Any]:
  """From noise at t = 0 to the clean end, in so many steps: where it ends, and what has been carried along."""
  return SOLVERS[solver](predict, noise, times(steps, shift), carried)


def _pairs(along: np.ndarray) -> tuple[Array, Array]:
  """Each time, and the one after it."""
  return jnp.asarray(along[:-1], jnp.float32), jnp.asarray(along[1:], jnp.float32)


def _advanced(predicted: Array, x: Array, t: Array, following: Array) -> Array:
  """Where a step towards x̂ leads; at the end, x̂ itself."""
  return jnp.where(following == 1, predicted, x + velocity(predicted, x, t) * (following - t))


def _shares(along: np.ndarray) -> np.ndarray:
  """(steps,) how much of the last change of x̂ each step expects again: half the ratio of its length to the last one's,
  in log t/(1 − t). None in the first two, as the first is infinitely long, nor in the last, which is, too."""
  with np.errstate(divide="ignore", invalid="ignore"):
    lengths = np.diff(np.log(along) - np.log1p(-along))
    ratios = np.concatenate([[0.0], lengths[1:] / lengths[:-1] / 2])
  return np.where(np.isfinite(ratios), ratios, 0.0)
