import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.models.layers import (
  grid_positions,
  patchify,
  rms_normalize,
  rotary,
  rotate,
  unpatchify,
)


def test_three_axis_rotary_on_text_is_the_one_dimensional_one_to_the_bit():
  time = jnp.arange(40)
  x = jax.random.normal(jax.random.key(0), (1, 40, 2, 32))
  one = rotate(x, rotary(time[None, :, None], 32, 10_000.0))
  three = rotate(x, rotary(jnp.repeat(time[None, :, None], 3, axis=-1), 32, 10_000.0))
  np.testing.assert_array_equal(one, three)


def test_rotary_scores_depend_on_distance_alone_and_on_every_axis():
  q, k = (jax.random.normal(jax.random.key(i), (1, 1, 1, 24)) for i in range(2))

  def score(q_place, k_place):
    places = [rotary(jnp.asarray([[place]]), 24, 100.0) for place in (q_place, k_place)]
    return float(jnp.sum(rotate(q, places[0]) * rotate(k, places[1])))

  base = score((3, 4, 5), (1, 1, 1))
  assert score((13, 24, 35), (11, 21, 31)) == pytest.approx(base, abs=1e-4)
  for other in ((4, 4, 5), (3, 5, 5), (3, 4, 6)):
    assert abs(score(other, (1, 1, 1)) - base) > 1e-3


def test_grid_positions_of_finer_cells_lie_within_the_coarse_ones():
  fine = grid_positions(4, 4, scale=0.5)
  np.testing.assert_allclose(fine[:2], [[-0.25, -0.25], [-0.25, 0.25]])
  np.testing.assert_allclose(grid_positions(2, 3)[4], [1, 1])


def test_patches_are_in_raster_order_and_come_back():
  images = jax.random.normal(jax.random.key(0), (2, 8, 12, 3))
  patches = patchify(images, 4)
  assert patches.shape == (2, 6, 48)
  np.testing.assert_array_equal(patches[0, 4].reshape(4, 4, 3), images[0, 4:8, 4:8])
  np.testing.assert_array_equal(unpatchify(patches, 4, 3), images)


def test_rms_normalize_gives_unit_mean_square():
  x = 7.0 * jax.random.normal(jax.random.key(0), (5, 64))
  np.testing.assert_allclose(jnp.mean(rms_normalize(x) ** 2, axis=-1), 1.0, rtol=1e-5)
