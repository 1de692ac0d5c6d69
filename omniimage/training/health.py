"""Updates that must not count: a loss or gradient that is not finite and, if the config says so, a loss far above those
before it. What is needed to tell is part of the state, so that a resumed run judges as one that never stopped.
"""

import flax
import jax.numpy as jnp
from jax import Array

from omniimage.settings import FaultSettings

WINDOW = 64  # losses that a new one is compared with
ENOUGH = 16  # of them, before any is called a spike
NORMAL = 1.4826  # standard deviations of a normal distribution in its median absolute deviation
SMALLEST = 1e-3  # deviation, as a share of the median: losses that hardly vary would make a spike of anything


@flax.struct.dataclass
class Health:
  """Attributes:
  losses: (WINDOW,) float32, of the last updates of this stage, the newest last; NaN where there were fewer.
  skipped_in_a_row: updates that changed nothing, up to now, int32.
  """

  losses: Array
  skipped_in_a_row: Array


def fresh_health() -> Health:
  return Health(jnp.full(WINDOW, jnp.nan, jnp.float32), jnp.zeros((), jnp.int32))


def spike_score(losses: Array, loss: Array) -> Array:
  """Robust z-score of a loss: deviations above the median of `losses` (Iglewicz and Hoaglin 1993). 0 if too few."""
  median = jnp.nanmedian(losses)
  deviation = NORMAL * jnp.nanmedian(jnp.abs(losses - median))
  score = (loss - median) / jnp.maximum(deviation, SMALLEST * jnp.abs(median))
  return jnp.where(jnp.sum(jnp.isfinite(losses)) >= ENOUGH, score, 0.0)


def judge(health: Health, loss: Array, grad_norms: dict[str, Array], faults: FaultSettings):
  """Whether an update counts, the health after it, and metrics.

  Returns:
    good: bool; where it is False the update must change nothing.
    health: with the loss among its losses, if the update counts.
    metrics: `spike_score`; `skipped_in_a_row`, 0 if the update counts.
  """
  score = spike_score(health.losses, loss)
  good = jnp.isfinite(loss)
  for norm in grad_norms.values():
    good &= jnp.isfinite(norm)
  if faults.skip_spikes:
    good &= score <= faults.spike_score
  losses = jnp.where(good, jnp.append(health.losses[1:], loss.astype(jnp.float32)), health.losses)
  skipped = jnp.where(good, 0, health.skipped_in_a_row + 1)
  return good, Health(losses, skipped), {"spike_score": score, "skipped_in_a_row": skipped}
