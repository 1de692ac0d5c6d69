"""How like its original is a picture, pixel by pixel?

Axes: n images, H and W pixels.
"""

import numpy as np

LOWEST_MSE = 1e-10  # an image that comes back to the bit has 100 dB, not infinitely many
WINDOW, SIGMA = 11, 1.5  # of SSIM, in pixels, as published
K1, K2 = 0.01, 0.03


def mean_squared_errors(images: np.ndarray, references: np.ndarray) -> np.ndarray:
  """(n,) over pixels in [0, 1], of uint8 images (n, H, W, 3)."""
  difference = (images.astype(np.float32) - references.astype(np.float32)) / 255
  return np.mean(np.square(difference), axis=(1, 2, 3), dtype=np.float64)


def decibels(mse: np.ndarray) -> np.ndarray:
  """Peak signal-to-noise ratio of mean squared errors on [0, 1]; at most 100 dB."""
  return -10 * np.log10(np.maximum(mse, LOWEST_MSE))


def structural_similarities(images: np.ndarray, references: np.ndarray) -> np.ndarray:
  """SSIM (Wang et al. 2004), (n,): 1 for the same picture, about 0 for pictures that have nothing in common.

  Means, variances and covariances in a Gaussian window, each color by itself, averaged over the places where the whole
  window lies inside, and over colors.

  Args:
    images, references: (n, H, W, 3) uint8, at least 11 pixels a side.

  Raises:
    ValueError: pictures smaller than the window.
  """
  if min(images.shape[1:3]) < WINDOW:
    raise ValueError(f"SSIM needs {WINDOW} pixels a side, not {images.shape[1]}×{images.shape[2]}")
  return np.array([_similarity(image, reference) for image, reference in zip(images, references)])


def _similarity(image: np.ndarray, reference: np.ndarray) -> float:
  x, y = (pixels.astype(np.float64) / 255 for pixels in (image, reference))
  mean_x, mean_y = _windowed(x), _windowed(y)
  variance_x = _windowed(x * x) - mean_x**2
  variance_y = _windowed(y * y) - mean_y**2
  covariance = _windowed(x * y) - mean_x * mean_y
  luminance = (2 * mean_x * mean_y + K1**2) / (mean_x**2 + mean_y**2 + K1**2)
  structure = (2 * covariance + K2**2) / (variance_x + variance_y + K2**2)
  return float(np.mean(luminance * structure))


def _windowed(pixels: np.ndarray) -> np.ndarray:
  """(H, W, 3) → (H − 10, W − 10, 3): Gaussian-weighted means of the windows that lie inside."""
  offsets = np.arange(WINDOW) - WINDOW // 2
  weights = np.exp(-0.5 * (offsets / SIGMA) ** 2)
  weights /= weights.sum()
  for axis in (0, 1):
    places = pixels.shape[axis] - WINDOW + 1
    pixels = sum(weight * pixels.take(range(i, i + places), axis) for i, weight in enumerate(weights))
  return pixels
