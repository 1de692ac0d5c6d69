"""Mean velocities, which few steps need: what is right has the error that it must have, and a painter learns them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from omniimage.errors import SettingsError
from omniimage.models.flow import flow_error, interpolate, velocity
from omniimage.settings import from_config
from omniimage.systems.omni_losses import Pass, some_corrupted
from omniimage.systems.omni_painting import mean_velocity_error
from tests import small

F, N, P = 64, 3, 2
SPREAD = 0.5  # standard deviation of the data


def of_patches(of_groups):
  return of_groups[..., None]


def variance(t):
  return (1 - t) ** 2 + (SPREAD * t) ** 2


def mean_of_gaussians(noisy, t, gap):
  """x̂ of the mean velocity to t + gap where the data are normal: there x_r = x_t · √(var_r / var_t)."""
  to, at = t + gap, of_patches(t)
  far = jnp.where(gap > 1e-3, gap, 1.0)
  slope = (SPREAD**2 * t - (1 - t)) / variance(t)  # of log √var
  mean = jnp.where(gap > 1e-3, (jnp.sqrt(variance(to) / variance(t)) - 1) / far, slope)
  return noisy + (1 - at) * of_patches(mean) * noisy


@pytest.fixture(scope="module")
def samples():
  clean, noise = (jax.random.normal(jax.random.key(seed), (F, N, P)) for seed in (0, 1))
  ends = jnp.sort(jax.random.uniform(jax.random.key(2), (2, F, N), maxval=0.9), axis=0)
  return SPREAD * clean, noise, *ends


def test_where_both_times_are_one_it_is_flow_matching(samples):
  clean, noise, t, _ = samples
  at = of_patches(t)
  predicted = mean_of_gaussians(interpolate(clean, noise, at), t, jnp.zeros_like(t))
  np.testing.assert_allclose(
    mean_velocity_error(mean_of_gaussians, clean, noise, t, t, of_patches)[0],
    flow_error(predicted, clean, at),
    rtol=2e-4,
    atol=1e-4,
  )


def test_a_true_mean_velocity_errs_as_much_as_the_true_velocity_and_another_does_not(samples):
  """What is left is the noise of single images, whichever time it goes to."""
  clean, noise, t, to = samples
  right, predicted = mean_velocity_error(mean_of_gaussians, clean, noise, t, to, of_patches)
  at_t, _ = mean_velocity_error(mean_of_gaussians, clean, noise, t, t, of_patches)
  np.testing.assert_allclose(right, at_t, rtol=5e-3, atol=5e-3)
  expected = mean_of_gaussians(interpolate(clean, noise, of_patches(t)), t, to - t)
  np.testing.assert_allclose(predicted, expected, rtol=1e-4, atol=1e-5)

  def deaf(noisy, t, gap):
    return mean_of_gaussians(noisy, t, jnp.zeros_like(gap))

  wrong, _ = mean_velocity_error(deaf, clean, noise, t, to, of_patches)
  assert np.abs(wrong - at_t).mean() > 0.1


def test_no_gradient_goes_through_the_slope(samples):
  clean, noise, t, to = samples

  def error(weight):
    predict = lambda noisy, t, gap: noisy + weight * (1 - of_patches(t)) * noisy  # noqa: E731
    return jnp.sum(mean_velocity_error(predict, clean, noise, t, to, of_patches)[0])

  # With u = weight · x_t the slope is weight² · x_t, of which the gradient knows nothing.
  def stopped(weight):
    at, x = of_patches(t), interpolate(clean, noise, of_patches(t))
    slope = jax.lax.stop_gradient(weight**2 * x)
    return jnp.sum((weight * x - of_patches(to - t) * slope - (clean - x) / (1 - at)) ** 2)

  np.testing.assert_allclose(jax.grad(error)(0.7), jax.grad(stopped)(0.7), rtol=1e-4)


def network(params, noisy, t, gap):
  """x̂ (…, 1) of numbers, by two layers."""
  times = jnp.stack([t, gap], axis=-1)
  seen = jnp.concatenate([noisy, times, jnp.sin(3 * noisy), jnp.cos(3 * noisy), noisy * times], axis=-1)
  for kernel in params[:-1]:
    seen = jnp.tanh(seen @ kernel)
  return seen @ params[-1]


def taught(steps: int = 2000, rows: int = 256, few_steps: float = 0.75):
  """A network that knows two numbers, −1 and 1."""
  optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

  def loss(params, key):
    of_clean, of_noise, of_ends, of_far = jax.random.split(key, 4)
    clean = jnp.where(jax.random.bernoulli(of_clean, shape=(rows, 1, 1)), 1.0, -1.0)
    t, to = jnp.sort(jax.random.uniform(of_ends, (2, rows, 1)), axis=0)
    to = jnp.where(jax.random.uniform(of_far, (rows, 1)) < few_steps, to, t)
    noise = jax.random.normal(of_noise, (rows, 1, 1))
    error, _ = mean_velocity_error(functools.partial(network, params), clean, noise, t, to, of_patches)
    return jnp.mean(error * (1 - of_patches(t)) ** 2)

  def step(state, key):
    params, moments = state
    updates, moments = optimizer.update(jax.grad(loss)(params, key), moments)
    return (optax.apply_updates(params, updates), moments), None

  keys = jax.random.split(jax.random.key(0), 3)
  params = [jax.random.normal(key, shape) / 8 for key, shape in zip(keys, ((7, 64), (64, 64), (64, 1)))]
  return jax.jit(lambda state, keys: jax.lax.scan(step, state, keys)[0])(
    (params, optimizer.init(params)), jax.random.split(jax.random.key(1), steps)
  )[0]


def test_what_learns_mean_velocities_decides_in_one_step():
  """All noise points at the middle of the two numbers; its path leads to one of them."""
  params, noise, zero = taught(), jax.random.normal(jax.random.key(9), (512, 1, 1)), jnp.zeros((512, 1))
  points, leads = network(params, noise, zero, zero), network(params, noise, zero, zero + 1)
  half = network(params, noise, zero, zero + 0.5)
  halfway = noise + 0.5 * velocity(half, noise, of_patches(zero))
  in_two = network(params, halfway, zero + 0.5, zero + 0.5)
  far = [float(jnp.mean((jnp.abs(x) - 1) ** 2)) for x in (points, leads, in_two)]
  assert far[0] > 0.5 and far[1] < 0.2 and far[2] < 0.15, far
  assert 0.3 < float(jnp.mean(leads > 0)) < 0.7


def test_the_painters_gradient_reaches_what_reads_how_far_a_step_goes():
  s = small.settings(**small.SHALLOW, **{"decoder.reads_gap": True, "stages.decoder.few_steps": 1.0})
  system, batch = small.system(s), small.batch(s)
  params, keys = small.params(system), jax.random.split(jax.random.key(0), 8)

  def loss(decoder):
    whole = {**params, "decoder": decoder}
    return system.losses(s.stages["decoder"], whole, batch, keys, jnp.int32(0), system.totals(batch))[0]

  reached = jax.jit(jax.grad(loss))(params["decoder"])
  assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(reached["gap"]))


def test_a_share_of_the_codes_that_are_painted_is_any_others():
  s = small.settings(**small.SHALLOW)
  model, rows = small.omni(s), 500
  stage = dataclasses.replace(s.stages["decoder"], corrupted_codes=0.3)
  params, keys = small.params(model), jax.random.split(jax.random.key(0), rows)
  given = jnp.full((rows, 2, 2, 2, 2), 9.0)  # of no code
  found = np.asarray(some_corrupted(Pass(model, stage, model.view(params), {}, keys, jnp.int32(0)), given))
  others = found[(found != 9).all(axis=-1)]
  assert (found == 9).all(axis=-1).sum() + len(others) == 4000 and abs(len(others) / 4000 - 0.3) < 0.03
  codebook = {tuple(row) for row in np.asarray(model.codebook(model.view(params)))}
  assert {tuple(row) for row in others} == codebook, "each of the 64 codes may be the other"


@pytest.mark.parametrize(
  "changes, said",
  [
    ({"stages.decoder.few_steps": 0.5}, "set decoder.reads_gap to True"),
    ({"stages.prior.few_steps": 0.5, "decoder.reads_gap": True}, "give weights.diffusion a weight"),
    (
      {"stages.decoder.few_steps": 0.5, "decoder.reads_gap": True, "gather_params": "hand"},
      "set gather_params to compiler",
    ),
    ({"stages.prior.corrupted_codes": 0.1}, "corrupted_codes=0.1 is for painting: give weights.diffusion a weight"),
    ({"sampling.solver": "mean"}, "is for a painter that was taught to go far in a step"),
  ],
  ids=str,
)
def test_what_cannot_be_taught_is_one_line(changes, said):
  with pytest.raises(SettingsError, match=said):
    s = from_config(small.config(**changes))
    for stage in s.schedule:
      small.system(s).check(stage)
