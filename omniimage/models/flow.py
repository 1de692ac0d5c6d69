"""The path from noise to an image that the decoder is trained on and sampled along (rectified flow).

A network that predicts the clean x̂ gives the velocity of the path; so training and sampling both need it.
"""

import jax.numpy as jnp
from jax import Array

SHORTEST_TIME_LEFT = 0.05  # clip of 1 − t, in the velocity and in its target alike


def interpolate(clean: Array, noise: Array, t: Array) -> Array:
  """x_t = (1 − t)·ε + t·x (rectified flow, Liu et al. 2022; Lipman et al. 2022)."""
  return (1 - t) * noise + t * clean


def velocity(predicted: Array, noisy: Array, t: Array) -> Array:
  """(x̂ − x_t) / (1 − t), the denominator clipped."""
  return (predicted - noisy) / jnp.maximum(1 - t, SHORTEST_TIME_LEFT)


def flow_error(predicted: Array, clean: Array, t: Array) -> Array:
  """Squared error of the velocity: (x̂ − x)² / max(1 − t, .05)², the same clip on both sides."""
  return jnp.square((predicted - clean) / jnp.maximum(1 - t, SHORTEST_TIME_LEFT))
