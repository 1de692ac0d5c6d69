"""What a picture of a scene shows, cell by cell, and how that answers what was asked; no learned part.

`score` compares what was asked with what `grade` saw: the attribute-binding accuracy of an image generator.
"""

import functools
from dataclasses import dataclass

import numpy as np

from omniimage.data.scenes.world import (
  BACKGROUND,
  COLORS,
  KINDS,
  SHAPES,
  SIZES,
  Scene,
  SceneObject,
  cell_span,
  check_grid,
  coverage,
  object_of,
)

# Axes: N images, S pixels of a side, P pixels of a cell, K coverage masks (shape × size), C colors, T templates.

# The metric of the grader: luma and, at half its weight, chroma (JPEG halves the resolution of chroma, and the eye has
# little more), scaled so that a change of all three channels by d is an RMS difference of d.
_METRIC = 3**0.5 * np.float32([[0.299, 0.587, 0.114], [-0.084, -0.166, 0.25], [0.25, -0.21, -0.04]])

# What still is a clear object or a clear empty cell. Calibrated on 16-pixel cells: true pictures under noise of 0.05
# and JPEG of quality 75 stay below all three; every 50/50 blend of two objects, or of one and nothing, exceeds one.
MAX_RESIDUAL = 0.15  # RMS difference to the nearest template over the cell
MAX_BETWEEN = 0.40  # how far the cell lies on the way from its nearest template (0) to any other one (1)
MAX_COLOR_ERROR = 0.10  # distance of the object's fitted color from the line between background and template color


@dataclass(frozen=True, eq=False)
class Graded:
  """What a picture shows: the clear objects, the cells (row, column) that show no template clearly, and the RMS
  difference (grid, grid) of each cell to its nearest template, in [0, 1] units of luma and half-weighted chroma."""

  scene: Scene
  unclear: tuple[tuple[int, int], ...]
  residuals: np.ndarray


@functools.lru_cache(maxsize=128)
def _templates(cell: float, height: int, width: int, center_y: float, center_x: float):
  """Coverage masks (K, P), inks (C, 3) and the inner products (T, T) of the templates mask × ink; the last is empty."""
  masks_KP = np.stack(
    [coverage(shape, size, cell, height, width, center_y, center_x).ravel() for shape in SHAPES for size in SIZES]
  )
  inks_C3 = _to_ink(np.uint8(list(COLORS.values())))
  return masks_KP, inks_C3, np.pad(np.kron(masks_KP @ masks_KP.T, inks_C3 @ inks_C3.T), (0, 1))


def _to_ink(pixels: np.ndarray) -> np.ndarray:
  """Pixels (..., 3), uint8 or float in [-1, 1], as differences from the background in the metric of the grader."""
  unit = pixels / np.float32(255) if pixels.dtype == np.uint8 else np.clip(pixels.astype(np.float32) / 2 + 0.5, 0, 1)
  return (unit - np.float32(BACKGROUND) / 255) @ _METRIC.T


def _nearest(ink_NP3: np.ndarray, masks_KP: np.ndarray, inks_C3: np.ndarray, products_TT: np.ndarray):
  """For N cells: index of the nearest template, RMS difference to it, and whether it is clear.

  A template is mask × ink, so all its squared distances come from one projection on each mask and channel."""
  rows_N = np.arange(len(ink_NP3))
  projections_NK3 = masks_KP @ ink_NP3
  along_NT = np.pad((projections_NK3 @ inks_C3.T).reshape(len(ink_NP3), -1), ((0, 0), (0, 1)))
  squares_T = np.diag(products_TT)
  distances_NT = np.einsum("npc,npc->n", ink_NP3, ink_NP3)[:, None] - 2 * along_NT + squares_T
  best_N = distances_NT.argmin(1)
  nearest_N1 = distances_NT[rows_N, best_N, None]
  residual_N = np.sqrt(np.maximum(nearest_N1[:, 0], 0) / ink_NP3[0].size)

  apart_NT = squares_T[best_N, None] + squares_T - 2 * products_TT[best_N]
  apart_NT[rows_N, best_N] = np.inf
  between_NT = 0.5 - (distances_NT - nearest_N1) / (2 * apart_NT)
  between_NT[rows_N, best_N] = 0

  # The color that fits the mask best; on the line, as a blurred object is paler but of no other color.
  empty_N = best_N == len(KINDS)
  mask_N, color_N = np.divmod(np.where(empty_N, 0, best_N), len(COLORS))
  fitted_N3 = projections_NK3[rows_N, mask_N] / np.einsum("kp,kp->k", masks_KP, masks_KP)[mask_N, None]
  ink_N3 = inks_C3[color_N]
  strength_N = np.minimum(np.einsum("nc,nc->n", fitted_N3, ink_N3) / np.einsum("nc,nc->n", ink_N3, ink_N3), 1)
  color_error_N = np.where(empty_N, 0, np.linalg.norm(fitted_N3 - strength_N[:, None] * ink_N3, axis=1))
  clear_N = (residual_N <= MAX_RESIDUAL) & (between_NT.max(1) <= MAX_BETWEEN) & (color_error_N <= MAX_COLOR_ERROR)
  return best_N, residual_N, clear_N


def grade_many(images: np.ndarray, grid: int) -> list[Graded]:
  """What N pictures show, cell by cell. images: (N,S,S,3), uint8 or float in [-1, 1]. ValueError on other shapes."""
  check_grid(grid)
  images = np.asarray(images)
  if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
    raise ValueError(f"grade: images have shape {images.shape}; expected (N, S, S, 3)")
  if images.dtype != np.uint8 and images.dtype.kind != "f":
    raise ValueError(f"grade: images are {images.dtype}; expected uint8, or float in [-1, 1]")
  num_images, image_size = images.shape[:2]
  ink_NSS3 = _to_ink(images)
  objects, unclear = [[] for _ in images], [[] for _ in images]
  residuals = np.zeros((num_images, grid, grid), np.float32)
  for row, column in np.ndindex(grid, grid):
    top, bottom, center_y = cell_span(image_size, grid, row)
    left, right, center_x = cell_span(image_size, grid, column)
    templates = _templates(image_size / grid, bottom - top, right - left, center_y, center_x)
    ink_NP3 = ink_NSS3[:, top:bottom, left:right].reshape(num_images, -1, 3)
    best_N, residuals[:, row, column], clear_N = _nearest(ink_NP3, *templates)
    for n, (kind, clear) in enumerate(zip(best_N.tolist(), clear_N.tolist())):
      if not clear:
        unclear[n].append((row, column))
      elif kind < len(KINDS):
        objects[n].append(object_of(kind, row, column))
  return [Graded(Scene(grid, tuple(o)), tuple(u), r) for o, u, r in zip(objects, unclear, residuals)]


def grade(image: np.ndarray, grid: int) -> Graded:
  """What one picture (S,S,3), uint8 or float in [-1, 1], shows."""
  return grade_many(np.asarray(image)[None], grid)[0]


@dataclass(frozen=True)
class Score:
  """How a picture answers a scene. `wrong` has one entry an expected object, in raster order: () if it is bound, else
  the attributes that are wrong: of "shape", "color", "size"; or "position" alone; or "missing"; or "unclear"."""

  wrong: tuple[tuple[str, ...], ...]
  extra: tuple[SceneObject, ...]  # objects nobody asked for
  unclear: tuple[tuple[int, int], ...]  # cells (row, column) that show nothing clearly

  @property
  def bound(self) -> tuple[bool, ...]:
    return tuple(not attributes for attributes in self.wrong)

  @property
  def exact(self) -> bool:
    return all(self.bound) and not self.extra and not self.unclear


def score(expected: Scene, graded: Graded) -> Score:
  """Compares cell by cell; what is missing from its cell but stands, otherwise right, in an unasked one has moved."""
  if graded.scene.grid != expected.grid:
    raise ValueError(f"score: the picture was graded on grid {graded.scene.grid}, the scene has grid {expected.grid}")
  asked = {item.cell for item in expected.objects}
  seen = {item.cell: item for item in graded.scene.objects}
  extra = [item for item in graded.scene.objects if item.cell not in asked]
  wrong = []
  for item in expected.objects:
    found = seen.get(item.cell)
    moved = next((other for other in extra if other.kind == item.kind), None)
    if found:
      wrong.append(tuple(name for name in ("shape", "color", "size") if getattr(found, name) != getattr(item, name)))
    elif moved:
      extra.remove(moved)
      wrong.append(("position",))
    else:
      wrong.append(("unclear",) if item.cell in graded.unclear else ("missing",))
  return Score(tuple(wrong), tuple(extra), graded.unclear)
