"""Classifier-free guidance (Ho & Salimans 2022) in one batched pass: every branch is rows of the same batch."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array


def repeated(times: int, *arrays: Array) -> list[Array]:
  """Each (B, …) so many times one after the other."""
  return [jnp.tile(x, (times,) + (1,) * (x.ndim - 1)) for x in arrays]


def guided(coefficients: Sequence[float], predicted: Array) -> Array:
  """Σ coefficient · x̂ over the branches, (K·B, …) → (B, …)."""
  return sum(coefficient * part for coefficient, part in zip(coefficients, jnp.split(predicted, len(coefficients))))
