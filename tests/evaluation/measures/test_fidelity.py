"""Fidelity: SSIM against scikit-image's numbers."""

import numpy as np
import pytest

from omniimage.evaluation.measures.fidelity import structural_similarities


def pictures(kind: str, side: int) -> tuple[np.ndarray, np.ndarray]:
  """A picture (side, side, 3) uint8 that any program can make, and one like it."""
  row, column, color = np.meshgrid(np.arange(side), np.arange(side), np.arange(3), indexing="ij")
  if kind == "smooth":
    picture = np.clip(128 + 100 * np.sin(row / 9 + color) * np.cos(column / 7), 0, 255).astype(np.uint8)
  else:
    picture = ((3 * row**2 + 7 * column + row * column * (color + 1)) % 256).astype(np.uint8)
  noise = (31 * row + 17 * column + 11 * color) % 41 - 20
  return picture, np.clip(picture.astype(int) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
  ("kind", "side", "expected"),
  [("patterned", 32, 0.9877379292570124), ("smooth", 32, 0.7161553150203552), ("smooth", 24, 0.7331992898568132)],
)
def test_ssim_is_that_of_scikit_image(kind, side, expected):
  """`skimage.metrics.structural_similarity` 0.26.0 with gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
  data_range=255, channel_axis=-1, which its documentation calls Wang et al.'s."""
  picture, like = (one[None] for one in pictures(kind, side))
  assert structural_similarities(picture, like) == pytest.approx([expected], abs=1e-12)


def test_ssim_of_a_picture_and_itself_is_one_and_of_its_negative_is_below_zero():
  picture = pictures("patterned", 24)[0][None]
  assert structural_similarities(np.concatenate([picture, picture]), np.concatenate([picture, 255 - picture])) == (
    pytest.approx([1, -0.98], abs=0.05)
  )


def test_ssim_of_pictures_smaller_than_its_window_is_refused():
  with pytest.raises(ValueError, match="SSIM needs 11 pixels a side, not 10×12"):
    structural_similarities(*np.zeros((2, 1, 10, 12, 3), np.uint8))
