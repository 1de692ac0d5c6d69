"""Classifier-free guidance (Ho & Salimans 2022) in one batched pass: every branch is rows of the same batch."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array

from omniimage.settings import SamplingSettings

Branch = tuple  # (what is kept, …, coefficient), the first with all of it


def asked_for(branches: Sequence[Branch], sampling: SamplingSettings) -> list[Branch]:
  """Those that need a pass: of a coefficient, or the first, where guidance does not last all the time."""
  rest = [branch for branch in branches[1:] if branch[-1] != 0]
  return [branch for branch in branches[:1] if branch[-1] != 0 or not sampling.guides_always] + rest


def kept_by(branches: Sequence[Branch], rows: int, condition: int = 0) -> Array:
  """(K·B,) bool, whether each of so many rows of each branch keeps a condition, one branch after the other."""
  return jnp.repeat(jnp.asarray([branch[condition] for branch in branches]), rows)


def coefficients_at(t: Array, branches: Sequence[Branch], sampling: SamplingSettings) -> list[Array] | list[float]:
  """Of each branch at a time: outside of guidance's interval (Kynkäänniemi et al. 2024, arXiv 2404.07724) the first is
  all there is."""
  always = [branch[-1] for branch in branches]
  if sampling.guides_always:
    return always
  inside = (sampling.guidance_from <= t) & (t <= sampling.guidance_until)
  return [jnp.where(inside, coefficient, float(i == 0)) for i, coefficient in enumerate(always)]


def repeated(times: int, *arrays: Array) -> list[Array]:
  """Each (B, …) so many times one after the other."""
  return [jnp.tile(x, (times,) + (1,) * (x.ndim - 1)) for x in arrays]


def guided(coefficients: Sequence[float], predicted: Array) -> Array:
  """Σ coefficient · x̂ over the branches, (K·B, …) → (B, …)."""
  return sum(coefficient * part for coefficient, part in zip(coefficients, jnp.split(predicted, len(coefficients))))
