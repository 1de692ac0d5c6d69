import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.models.quantizers.fsq import FSQ


def quantize(levels, z):
  return FSQ(levels).apply({}, z)


def features(levels, codes):
  return FSQ(levels).apply({}, codes, method="features")


@pytest.mark.parametrize("levels", [(8, 6, 5), (8, 5, 5, 5), (7, 5, 5, 5, 5), (2, 3)])
def test_codes_and_features_name_each_other(levels):
  fsq = FSQ(levels)
  z = 3 * jax.random.normal(jax.random.key(0), (4000, fsq.channels))
  given, codes, auxiliary, affinity = quantize(levels, z)
  assert codes.min() >= 0 and codes.max() < fsq.codes
  np.testing.assert_allclose(features(levels, codes), given, atol=1e-6)
  assert np.abs(given).max() <= 1 and auxiliary is None and affinity is None
  codebook = np.asarray(features(levels, jnp.arange(fsq.codes)))
  assert len(np.unique(codebook, axis=0)) == fsq.codes == len(codebook)


def test_every_code_can_be_reached():
  grid = jnp.stack(jnp.meshgrid(*[jnp.linspace(-6, 6, 200)] * 2), axis=-1).reshape(-1, 2)
  assert len(np.unique(quantize((8, 5), grid).codes)) == 40


def test_the_gradient_passes_straight_through_rounding():
  z = jnp.asarray([[0.3, -0.2]])
  grad = jax.grad(lambda z: quantize((8, 5), z).features.sum())(z)
  assert np.all(np.asarray(grad) > 0.1)


def test_it_has_no_parameters():
  assert FSQ((8, 5)).init(jax.random.key(0), jnp.zeros((1, 2))) == {}
