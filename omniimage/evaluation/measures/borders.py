"""Do the borders of patches show in what is painted patch by patch? Axes: n images, H and W pixels."""

import numpy as np

from omniimage.evaluation.sheets import to_uint8

# Added to every energy: a step of 4 gray levels, about the least one sees. Real images may be flat along a border (the
# scenes are between their cells), and without it the faintest noise there would be an endless seam.
FAINT = (4 / 255) ** 2


def patch_border_ratio(images: np.ndarray, real_images: np.ndarray, patch_size: int) -> float:
  """Gradient energy across the borders of patches ÷ across all other steps from pixel to pixel, over the same ratio of
  the real images.

  Args:
    images, real_images: (n, H, W, 3), uint8 or float in [-1, 1]; the numbers of images may differ.
    patch_size: pixels of a patch, along one side.

  Returns:
    1.0 where no grid is to be seen; more where patches do not fit together. Exactly 1.0 where there are no borders, or
    nothing else.
  """
  if patch_size == 1 or patch_size >= max(images.shape[1:3]):
    return 1.0
  (border, inside), (real_border, real_inside) = (patch_energies(some, patch_size) for some in (images, real_images))
  return (border + FAINT) / (inside + FAINT) / ((real_border + FAINT) / (real_inside + FAINT))


def patch_energies(images: np.ndarray, patch_size: int) -> tuple[float, float]:
  """Mean squared steps, of pixels in [0, 1], across the borders of patches and between neighbors within one."""
  unit = to_uint8(images).astype(np.float32) / 255
  borders, insides = [], []
  for axis in (1, 2):
    steps = np.mean(np.square(np.diff(unit, axis=axis)), axis=(0, 3 - axis, 3), dtype=np.float64)
    is_border = np.arange(1, len(steps) + 1) % patch_size == 0
    borders.append(steps[is_border])
    insides.append(steps[~is_border])
  return tuple(float(np.mean(np.concatenate(parts))) for parts in (borders, insides))
