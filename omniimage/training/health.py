"""Updates that must not count: of a batch that teaches nothing, or with a loss or gradient that is not finite and, if
the config says so, with a loss far above those before it. What is needed to tell is part of the state, so that a
resumed run judges as one that never stopped.
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
  """Robust z-score of a loss: deviations above the median of `losses` (Iglewicz and Hoaglin 1993).

  0 if they are too few, or if they are all zero: of what deviates from them none says how far.
  """
  median = jnp.nanmedian(losses)
  deviation = NORMAL * jnp.nanmedian(jnp.abs(losses - median))
  scale = jnp.maximum(deviation, SMALLEST * jnp.abs(median))
  enough = (jnp.sum(jnp.isfinite(losses)) >= ENOUGH) & (scale > 0)
  return jnp.where(enough, (loss - median) / jnp.where(enough, scale, 1.0), 0.0)


def judge(health: Health, loss: Array, grad_norms: dict[str, Array], teaches: Array, faults: FaultSettings):
  """Whether an update counts, the health after it, and metrics.

  Args:
    teaches: bool, whether anything in the batch has a weight. One without is no sign of ill health either.

  Returns:
    good: bool; where it is False the update must change nothing.
    health: with the loss among its losses, if the update counts.
    metrics: `spike_score`; `skipped_in_a_row`, 0 if the update counts; `empty`, 1 if the batch teaches nothing.
  """
  score = spike_score(health.losses, loss)
  healthy = jnp.isfinite(loss)
  for norm in grad_norms.values():
    healthy &= jnp.isfinite(norm)
  if faults.skip_spikes:
    healthy &= score <= faults.spike_score
  good = healthy & teaches
  losses = jnp.where(good, jnp.append(health.losses[1:], loss.astype(jnp.float32)), health.losses)
  skipped = jnp.where(teaches, jnp.where(healthy, 0, health.skipped_in_a_row + 1), health.skipped_in_a_row)
  judged = {"spike_score": score, "skipped_in_a_row": skipped, "empty": (~teaches).astype(jnp.int32)}
  return good, Health(losses, skipped), judged
