import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from omniimage.models.cross_entropy import cross_entropy

B, L, D, V, IDS = 3, 13, 5, 16, 11  # five columns of the head are padding


def _problem(seed: int = 0, dtype=jnp.float32):
  """hidden, kernel, targets, weights; some weights zero, and large values in the padding columns."""
  keys = jax.random.split(jax.random.key(seed), 5)
  kernel = jax.random.normal(keys[1], (D, V)).at[:, IDS:].set(9.0)
  weights = jax.random.uniform(keys[3], (B, L)) * jax.random.bernoulli(keys[4], 0.7, (B, L))
  targets = jax.random.randint(keys[2], (B, L), 0, IDS)
  return jax.random.normal(keys[0], (B, L, D)).astype(dtype), kernel, targets, weights


def _plain(hidden, kernel, targets, weights, z_weight):
  """The same, with all the logits at once."""
  logits = jnp.matmul(hidden.astype(jnp.float32), kernel)[..., :IDS]
  log_z = jax.nn.logsumexp(logits, axis=-1)
  nll = log_z - jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  return jnp.sum(weights * (nll + z_weight * log_z**2)), jnp.sum(weights * nll)


def _gradients(fn, hidden, kernel, *rest):
  """Values and the gradients of three times `total` with respect to the hidden states and the head."""

  def loss(hidden, kernel):
    total, nll = fn(hidden, kernel, *rest)
    return 3 * total, (total, nll)

  gradients, values = jax.grad(loss, argnums=(0, 1), has_aux=True)(hidden, kernel)
  return values, gradients


@pytest.mark.parametrize("chunk", [1, 4, 5, 13, 512])
@pytest.mark.parametrize("z_weight", [0.0, 0.1])
def test_chunked_cross_entropy_equals_the_plain_one_in_values_and_gradients(chunk, z_weight):
  hidden, kernel, targets, weights = _problem()
  chunked = lambda h, k: cross_entropy(h, k, targets, weights, IDS, z_weight, chunk)  # noqa: E731
  plain = lambda h, k: _plain(h, k, targets, weights, z_weight)  # noqa: E731
  values, gradients = jax.jit(functools.partial(_gradients, chunked))(hidden, kernel)
  expected_values, expected = jax.jit(functools.partial(_gradients, plain))(hidden, kernel)
  np.testing.assert_allclose(values, expected_values, rtol=1e-5)
  np.testing.assert_allclose(jax.jit(chunked)(hidden, kernel), expected_values, rtol=1e-5)  # not differentiated
  for got, want in zip(gradients, expected):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
  assert values[0] > values[1] if z_weight else values[0] == values[1]
  assert not np.any(gradients[1][:, IDS:])  # padding takes no probability
  assert not np.any(gradients[0][weights == 0])


def test_chunked_cross_entropy_takes_bfloat16_states_and_sums_in_float32():
  hidden, kernel, targets, weights = _problem(dtype=jnp.bfloat16)
  kernel = kernel.astype(jnp.bfloat16).astype(jnp.float32)
  chunked = lambda h, k: cross_entropy(h, k, targets, weights, IDS, 0.1, 4)  # noqa: E731
  plain = lambda h, k: _plain(h, k, targets, weights, 0.1)  # noqa: E731
  values, gradients = jax.jit(functools.partial(_gradients, chunked))(hidden, kernel)
  expected_values, expected = jax.jit(functools.partial(_gradients, plain))(hidden, kernel)
  assert values[0].dtype == gradients[1].dtype == jnp.float32 and gradients[0].dtype == jnp.bfloat16
  np.testing.assert_allclose(values, expected_values, rtol=1e-4)
  for got, want in zip(gradients, expected):
    np.testing.assert_allclose(got.astype(np.float32), want.astype(np.float32), rtol=0.02, atol=0.02)


def test_only_the_total_of_cross_entropy_is_differentiated():
  hidden, kernel, targets, weights = _problem()
  nll = lambda h, k, w: cross_entropy(h, k, targets, w, IDS, 0.1, 4)[1]  # noqa: E731
  assert not any(np.any(g) for g in jax.jit(jax.grad(nll, argnums=(0, 1, 2)))(hidden, kernel, weights))


def _sizes(jaxpr):
  """Elements of every array that a jaxpr makes, inner ones included."""
  for equation in jaxpr.eqns:
    yield from (v.aval.size for v in equation.outvars if hasattr(v.aval, "size"))
    for inner in jaxprs_in_params(equation.params):
      yield from _sizes(inner)


def _compiled_sizes(text: str):
  """Elements of every array named in the text of a compiled program."""
  for dimensions in re.findall(r"\w\d+\[([\d,]+)\]", text):
    yield math.prod(map(int, dimensions.split(",")))


@pytest.mark.parametrize("differentiated", [False, True])
@pytest.mark.parametrize("chunk, positions", [(4, 4), (24, 24)])
def test_no_more_logits_exist_at_one_time_than_those_of_a_chunk(chunk, positions, differentiated):
  """Rows × positions × ids is the largest array there is: all logits with one chunk of 24, a sixth with six."""
  rows, length, ids = 2, 24, 512
  targets, weights = jnp.ones((rows, length), jnp.int32), jnp.ones((rows, length))
  fn = lambda h, k: cross_entropy(h, k, targets, weights, ids, 0.1, chunk)[0]  # noqa: E731
  fn = jax.jit(jax.grad(fn, argnums=(0, 1)) if differentiated else fn)
  args = jnp.ones((rows, length, 4)), jnp.ones((4, ids))
  assert max(_sizes(jax.make_jaxpr(fn)(*args).jaxpr)) == rows * positions * ids
  assert max(_compiled_sizes(fn.lower(*args).compile().as_text())) == rows * positions * ids
