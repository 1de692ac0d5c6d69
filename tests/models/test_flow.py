import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.models.flow import SHORTEST_TIME_LEFT, flow_error, interpolate, velocity


def test_interpolation_goes_from_noise_to_clean():
  clean, noise = jnp.asarray([1.0, 2.0]), jnp.asarray([-3.0, 5.0])
  np.testing.assert_array_equal(interpolate(clean, noise, jnp.zeros(())), noise)
  np.testing.assert_array_equal(interpolate(clean, noise, jnp.ones(())), clean)
  np.testing.assert_allclose(interpolate(clean, noise, jnp.asarray(0.25)), 0.75 * noise + 0.25 * clean)


def test_flow_error_is_the_squared_difference_of_velocities_at_every_time():
  predicted, clean, noise = jax.random.normal(jax.random.key(0), (3, 40, 6))
  t = jnp.linspace(0, 1, 40)[:, None]
  noisy = interpolate(clean, noise, t)
  difference = velocity(predicted, noisy, t) - velocity(clean, noisy, t)
  np.testing.assert_allclose(flow_error(predicted, clean, t), difference**2, rtol=1e-3)
  # The clean image's velocity leads straight from the noise to it, until the clip.
  early = t[:, 0] <= 1 - SHORTEST_TIME_LEFT
  np.testing.assert_allclose(velocity(clean, noisy, t)[early], (clean - noise)[early], rtol=1e-4, atol=1e-4)
  weight = flow_error(clean + 1, clean, t)[:, 0]
  np.testing.assert_allclose(weight, 1 / np.maximum(1 - t[:, 0], 0.05) ** 2, rtol=1e-4)


MEAN, SPREAD = 2.0, 0.5  # of one-dimensional Gaussian data, whose conditional mean is known


def _conditional_mean(noisy, t):
  gain = t * SPREAD**2 / ((1 - t) ** 2 + (t * SPREAD) ** 2)
  return MEAN + gain * (noisy - t * MEAN)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 1.0])
def test_the_conditional_mean_has_the_least_flow_error(t):
  clean, noise = jax.random.normal(jax.random.key(0), (2, 100_000))
  clean = MEAN + SPREAD * clean
  noisy = interpolate(clean, noise, t)

  @jax.jit
  def error(change):
    """Mean error of the conditional mean, moved by a line in x_t."""
    predicted = _conditional_mean(noisy, t) + change[0] + change[1] * (noisy - t * MEAN)
    return jnp.mean(flow_error(predicted, clean, t)) * max(1 - t, SHORTEST_TIME_LEFT) ** 2

  np.testing.assert_allclose(jax.grad(error)(jnp.zeros(2)), 0, atol=0.01)
  others = ([0.1, 0.0], [-0.1, 0.0], [0.0, 0.2], [0.0, -0.2])
  assert error(jnp.zeros(2)) + 0.005 < min(error(jnp.asarray(change)) for change in others)


def test_euler_steps_along_the_velocity_carry_noise_to_the_data():
  """As in sampling: the last step takes the prediction itself, because of the clip."""
  x, steps = jax.random.normal(jax.random.key(0), (20_000,)), 50
  for i in range(steps):
    predicted = _conditional_mean(x, i / steps)
    x = predicted if i == steps - 1 else x + velocity(predicted, x, i / steps) / steps
  assert float(x.mean()) == pytest.approx(MEAN, abs=0.02) and float(x.std()) == pytest.approx(SPREAD, rel=0.05)
