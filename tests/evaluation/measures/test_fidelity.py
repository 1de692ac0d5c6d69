"""Fidelity: SSIM against scikit-image's numbers."""

import numpy as np
import pytest

from omniimage.evaluation.measures.fidelity import structural_similarities
from tests.made_lpips import byte_pictures


@pytest.mark.parametrize(
  ("kind", "side", "expected"),
  [("patterned", 32, 0.9877379292570124), ("smooth", 32, 0.7161553150203552), ("smooth", 24, 0.7331992898568132)],
)
def test_ssim_is_that_of_scikit_image(kind, side, expected):
  """`skimage.metrics.structural_similarity` 0.26.0 with gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
  data_range=255, channel_axis=-1, which its documentation calls Wang et al.'s."""
  picture, like = (one[None] for one in byte_pictures(kind, side, side))
  assert structural_similarities(picture, like) == pytest.approx([expected], abs=1e-12)


def test_ssim_of_a_picture_and_itself_is_one_and_of_its_negative_is_below_zero():
  picture = byte_pictures("patterned", 24, 24)[:1]
  assert structural_similarities(np.concatenate([picture, picture]), np.concatenate([picture, 255 - picture])) == (
    pytest.approx([1, -0.98], abs=0.05)
  )


def test_ssim_of_pictures_smaller_than_its_window_is_refused():
  with pytest.raises(ValueError, match="SSIM needs 11 pixels a side, not 10×12"):
    structural_similarities(*np.zeros((2, 1, 10, 12, 3), np.uint8))
