"""What the backward pass recomputes changes memory and time, never gradients."""

import itertools

import jax
import numpy as np
import pytest

from omniimage.models.layers import SAVED
from omniimage.settings import REMAT
from tests import small


def gradients(remat: str):
  s = small.settings(remat=remat, scan_layers=True)
  system, batch = small.system(s), small.batch(s, rows=2)
  keys = jax.random.split(jax.random.key(0), 2)
  stage, total = s.stages["joint"], system.totals(batch)

  def loss(params):
    return system.losses(stage, params, batch, keys, 0, total)[0]

  return jax.jit(jax.value_and_grad(loss)), small.params(system)


@pytest.fixture(scope="module")
def all_saved():
  fn, params = gradients("none")
  return fn(params)


@pytest.mark.parametrize("remat", REMAT[1:])
def test_every_policy_gives_the_same_gradients(all_saved, remat):
  fn, params = gradients(remat)
  assert "checkpoint" in fn.lower(params).as_text(debug_info=True) or "remat" in str(fn.trace(params).jaxpr)
  for ours, expected in zip(jax.tree.leaves(fn(params)), jax.tree.leaves(all_saved)):
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_policies_save_more_and_more():
  assert list(REMAT[1:-1]) == list(SAVED)[::-1]
  names = list(SAVED.values())
  assert all(set(fewer) < set(more) for fewer, more in itertools.pairwise(names))
