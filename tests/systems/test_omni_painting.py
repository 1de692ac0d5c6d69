"""Mean velocities, which few steps need: what is right has the error that it must have, and a painter learns them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.errors import SettingsError
from omniimage.models.flow import flow_error, interpolate
from omniimage.sampling.diffusion import paint
from omniimage.settings import from_config
from omniimage.systems.omni_losses import Pass, some_corrupted
from omniimage.systems.omni_painting import mean_velocity_error
from omniimage.training.optimizer import make_optimizer
from omniimage.training.state import enter_stage, fresh_state
from omniimage.training.step import make_train_step
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


FEW = {
  **small.SHALLOW,
  "data.images_per_row": 1,
  "data.sequence_length": 40,
  "decoder.width": 64,
  "decoder.mlp_width": 128,
  "decoder.chunk_rows": (0,),
  "decoder.reads_gap": True,
  "decoder.drop_tokens": 0.999,  # nothing says which picture it is: it is up to the noise
  "decoder.drop_text": 0.999,
}


@functools.cache
def _from_two_pictures(few_steps: float) -> float:
  """How far what is painted in one step is from the nearer of the two pictures that a painter knows, by mean square;
  some of its images may have taught it to go so far."""
  s = small.settings(**FEW, **{"stages.decoder.few_steps": few_steps})
  model = small.omni(s)
  stage = dataclasses.replace(s.stages["decoder"], steps=400, rates={"decoder": 4e-3}, warmup_steps=10)
  state = fresh_state(jax.jit(model.init)(jax.random.key(0)))
  step, batch = jax.jit(make_train_step(small.system(s), stage, 0)), small.batch(s)
  batch = {name: np.concatenate([value[:2]] * 4) for name, value in batch.items()}
  state = enter_stage(state, stage.moves, make_optimizer(s.optimizer, stage))
  for _ in range(stage.steps):
    state, _ = step(state, batch)
  drawer, images = small.omni(s, scan=False), batch["images"][:, 0].astype(np.float32) / 127.5 - 1
  sampling = dataclasses.replace(s.sampling, diffusion_steps=1, solver="mean", token_guidance=0.0, text_guidance=0.0)

  @jax.jit
  def painted(params):
    params, keys = drawer.view(params), jax.random.split(jax.random.key(3), 8)
    nothing = jnp.zeros((8, 1, s.prior.width)), jnp.zeros((8, 1), bool)
    return paint(drawer, params, drawer.encode(params, images).features, *nothing, keys, sampling)

  found = np.asarray(painted(state.params))[:, None]
  return float(np.mean(np.min(np.mean(np.square(found - images[:2]), axis=(2, 3, 4)), axis=1)))


def test_a_painter_that_learns_mean_velocities_decides_in_one_step():
  """One that has not paints the mean of both."""
  untaught, taught = _from_two_pictures(0.0), _from_two_pictures(0.75)
  assert taught < 0.75 * untaught


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
