"""Solvers of the painter's path, on Gaussian data, where all of it is known: what is expected at the end, x̂, and where
the exact path leads, mean + deviation·ε."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.sampling.solvers import SOLVERS, times, walk
from omniimage.settings import SOLVERS as NAMED
from omniimage.settings import SettingsError
from tests import small

MEAN, DEVIATION = 0.7, 0.5


def expected(x, t):
  variance = (t * DEVIATION) ** 2 + (1 - t) ** 2
  return MEAN + t * DEVIATION**2 / variance * (x - t * MEAN)


def error(solver: str, steps: int, shift: float = 1.0) -> tuple[float, int]:
  """Root mean square, and how often the network was asked."""
  noise = jax.random.normal(jax.random.key(0), (4096,))
  end, asked = jax.jit(lambda x: walk(lambda x, t, n, *_: (expected(x, t), n + 1), x, steps, solver, shift, 0))(noise)
  return float(jnp.sqrt(jnp.mean(jnp.square(end - MEAN - DEVIATION * noise)))), int(asked)


def test_settings_name_the_solvers_there_are():
  assert tuple(SOLVERS) == NAMED
  with pytest.raises(SettingsError, match=r"sampling.solver='rk4': euler, heun, multistep"):
    small.settings(**{"sampling.solver": "rk4"})


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("multistep", 2)])
def test_more_steps_come_nearer_by_the_solvers_order(solver, order):
  coarse, fine = (error(solver, steps)[0] for steps in (6, 12))
  assert coarse / fine > 0.8 * 2**order, (coarse, fine)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_each_asks_as_often_as_it_says_and_one_step_is_what_is_expected_of_noise(solver, steps):
  found, asked = error(solver, steps)
  assert asked == (2 * steps - 1 if solver == "heun" else steps) and np.isfinite(found)
  if steps == 1:
    assert found == pytest.approx(DEVIATION, rel=0.1), "the mean, whatever the noise"


def test_asked_as_often_both_of_second_order_are_nearer_than_euler():
  euler, heun, multistep = error("euler", 15)[0], error("heun", 8)[0], error("multistep", 15)[0]
  assert multistep < heun < euler / 2


def test_a_shift_moves_times_towards_the_noise_and_leaves_the_ends():
  plain, shifted = times(8), times(8, 3.0)
  np.testing.assert_allclose(plain, np.arange(9) / 8)
  assert shifted[0] == 0 and shifted[-1] == 1 and (np.diff(shifted) > 0).all() and (shifted[1:-1] < plain[1:-1]).all()
  np.testing.assert_allclose(shifted[4], 0.25)  # of noise a half: 3 · .5 / 2 = .75
  assert times(3, 1e-2)[1] > 0.9


@pytest.mark.parametrize("solver", SOLVERS)
def test_shifted_times_lead_to_the_same_place(solver):
  assert error(solver, 64, 2.0)[0] < 0.05 and error(solver, 64, 0.5)[0] < 0.05
