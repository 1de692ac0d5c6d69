"""Borders of patches: a planted grid is found, and nothing else passes for one."""

import numpy as np
import pytest

from omniimage.evaluation.measures.borders import patch_border_ratio


def noise(n: int = 24, height: int = 32, width: int = 32, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).uniform(-0.5, 0.5, size=(n, height, width, 3))


def with_grid(images: np.ndarray, side: int, step: float = 0.3) -> np.ndarray:
  """Images in which every second square of this side is brighter, as on a chessboard."""
  row, column = (np.arange(size) // side for size in images.shape[1:3])
  return images + step * ((row[:, None] + column) % 2)[..., None]


def test_images_without_a_grid_have_a_ratio_of_one():
  assert patch_border_ratio(noise(), noise(), 8) == 1
  assert patch_border_ratio(noise(seed=1), noise(seed=2), 8) == pytest.approx(1, abs=0.05)


def test_a_grid_raises_the_ratio_and_a_stronger_one_raises_it_more():
  weak, strong = (patch_border_ratio(with_grid(noise(), 8, step), noise(), 8) for step in (0.2, 0.4))
  # Steps of uniform noise have an energy of 1/6; the planted one adds its square.
  assert weak == pytest.approx(1 + 6 * 0.2**2, abs=0.05) and strong == pytest.approx(1 + 6 * 0.4**2, abs=0.1)


def test_borders_of_columns_count_as_those_of_rows():
  """A canvas four patches high and one wide has borders of rows alone, turned it has those of columns."""
  high = with_grid(noise(width=8), 8)
  turned, real = (np.swapaxes(images, 1, 2) for images in (high, noise(width=8, seed=1)))
  ratio = patch_border_ratio(high, noise(width=8, seed=1), 8)
  assert ratio == pytest.approx(patch_border_ratio(turned, real, 8)) and ratio > 1.3


def test_a_grid_of_another_size_is_no_border_of_patches():
  assert patch_border_ratio(with_grid(noise(), 2), noise(), 7) == pytest.approx(1, abs=0.1)


def test_edges_that_the_real_images_have_too_do_not_count():
  edged = with_grid(noise(), 8)
  assert patch_border_ratio(edged, edged, 8) == 1 and patch_border_ratio(noise(), edged, 8) < 0.8


@pytest.mark.parametrize("patch_size", [1, 32])
def test_a_canvas_of_single_pixels_or_of_one_patch_has_no_grid(patch_size):
  assert patch_border_ratio(noise(), noise(seed=1), patch_size) == 1


def test_flat_borders_of_real_images_do_not_make_a_grid_of_the_faintest_noise():
  flat = np.full((8, 32, 32, 3), 200, np.uint8)
  gray_level = np.random.default_rng(0).integers(-1, 2, size=flat.shape)
  assert patch_border_ratio((flat + gray_level).astype(np.uint8), flat, 8) == pytest.approx(1, abs=0.05)
