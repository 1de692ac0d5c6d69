"""The entropy penalty of a learnt codebook (MAGVIT-v2, Yu et al. 2023, arXiv 2310.05737): each place shall be sure of
its code, and all places together shall use all codes.

Axes: N places, C codes.
"""

import jax
import jax.numpy as jnp
from jax import Array

TEMPERATURE = 0.01  # of the affinities, in LlamaGen and in IBQ


def entropy_penalty(affinity_NC: Array, weights_N: Array) -> Array:
  """H of the places, on average, minus H of their average, in nats; from −ln C to 0.

  It is no sum over places: all that shall use the codes together must be given at once.

  Args:
    affinity_NC: of `Quantized`.
    weights_N: of the places; they add up to one.
  """
  log_NC = jax.nn.log_softmax(affinity_NC / TEMPERATURE)
  share_NC = jnp.exp(log_NC)
  of_places_N = -jnp.sum(share_NC * log_NC, axis=-1)
  together_C = jnp.einsum("n,nc->c", weights_N, share_NC)
  of_all = -jnp.sum(together_C * jnp.log(together_C + 1e-9))  # far below 1 / C, and where a code is not near anything
  return jnp.sum(weights_N * of_places_N) - of_all
