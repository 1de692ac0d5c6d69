import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.models.quantizers import FSQ


@pytest.mark.parametrize("levels", [(8, 6, 5), (8, 5, 5, 5), (7, 5, 5, 5, 5), (2, 3)])
def test_codes_and_features_name_each_other(levels):
  fsq = FSQ(levels)
  z = 3 * jax.random.normal(jax.random.key(0), (4000, len(levels)))
  features, codes = fsq.quantize(z)
  assert codes.min() >= 0 and codes.max() < fsq.codes
  np.testing.assert_allclose(fsq.features(codes), features, atol=1e-6)
  assert np.abs(features).max() <= 1
  codebook = np.asarray(fsq.codebook())
  assert len(np.unique(codebook, axis=0)) == fsq.codes == len(codebook)


def test_every_code_can_be_reached():
  fsq = FSQ((8, 5))
  grid = jnp.stack(jnp.meshgrid(*[jnp.linspace(-6, 6, 200)] * 2), axis=-1).reshape(-1, 2)
  assert len(np.unique(fsq.quantize(grid)[1])) == 40


def test_the_gradient_passes_straight_through_rounding():
  fsq = FSQ((8, 5))
  z = jnp.asarray([[0.3, -0.2]])
  features = lambda z: fsq.quantize(z)[0].sum()  # noqa: E731
  grad = jax.grad(features)(z)
  assert np.all(np.asarray(grad) > 0.1)
