"""What a picture of a scene shows, cell by cell, and how that answers what was asked; no learned part.

`score` compares what was asked with what `grade` saw: the attribute-binding accuracy of an image generator. Where
objects stand beside the centers of their cells, every place at which one may stand has templates of its own.
"""

import functools
import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from omniimage.data.scenes.world import (
  BACKGROUND,
  CENTERED,
  COLORS,
  KINDS,
  SHAPES,
  SIZES,
  Scene,
  SceneObject,
  Shifts,
  cell_of,
  check_grid,
  coverage,
  object_of,
)

# Axes: N images, S pixels of a side, P pixels of a cell, K coverage masks (shape × size × where it stands), C colors,
# T templates (K × C, and nothing).

# The metric of the grader: luma and, at half its weight, chroma (JPEG halves the resolution of chroma, and the eye has
# little more), scaled so that a change of all three channels by d is an RMS difference of d.
_METRIC = 3**0.5 * np.float32([[0.299, 0.587, 0.114], [-0.084, -0.166, 0.25], [0.25, -0.21, -0.04]])

# What still is a clear object or a clear empty cell. Calibrated on 16-pixel cells: true pictures under noise of 0.05
# and JPEG of quality 75 stay below all three; every 50/50 blend of two objects, or of one and nothing, exceeds one.
MAX_RESIDUAL = 0.15  # RMS difference to the nearest template over the cell
MAX_BETWEEN = 0.40  # how far the cell lies on the way from its nearest template (0) to one of anything else (1)
MAX_COLOR_ERROR = 0.10  # distance of the object's fitted color from the line between background and template color

NOTHING = len(KINDS)  # in the place of a kind
AT_A_TIME = 2**22  # distances between images and templates


@dataclass(frozen=True, eq=False)
class Graded:
  """What a picture shows: the clear objects, the cells (row, column) that show no template clearly, and the RMS
  difference (grid, grid) of each cell to its nearest template, in [0, 1] units of luma and half-weighted chroma."""

  scene: Scene
  unclear: tuple[tuple[int, int], ...]
  residuals: np.ndarray


@dataclass(frozen=True, eq=False)
class Templates:
  """All that a cell may show: mask × ink, so that inner products of templates are products of those of the two."""

  masks_KP: np.ndarray
  mask_products_KK: np.ndarray
  inks_C3: np.ndarray
  ink_products_CC: np.ndarray
  squares_T: np.ndarray
  kind_T: np.ndarray  # index of KINDS, or NOTHING


@functools.lru_cache(maxsize=64)
def _templates(shifts: Shifts, cell: float, height: int, width: int, center_y: float, center_x: float) -> Templates:
  """Of a cell in which objects of each size stand at some shifts, in cells, along both axes."""
  masks, kinds = [], []
  for look, (shape, size) in enumerate(itertools.product(SHAPES, SIZES)):
    own = shifts[list(SIZES).index(size)]
    for down, right in itertools.product(own, own):
      mask = coverage(shape, size, cell, height, width, center_y + down * cell, center_x + right * cell)
      masks.append(mask.ravel())
      kinds.append(look * len(COLORS) + np.arange(len(COLORS)))
  masks_KP, inks_C3 = np.stack(masks), _to_ink(np.uint8(list(COLORS.values())))
  mask_products_KK, ink_products_CC = masks_KP @ masks_KP.T, inks_C3 @ inks_C3.T
  squares_T = np.append(np.outer(np.diag(mask_products_KK), np.diag(ink_products_CC)), np.float32(0))
  return Templates(masks_KP, mask_products_KK, inks_C3, ink_products_CC, squares_T, np.append(kinds, NOTHING))


def _to_ink(pixels: np.ndarray) -> np.ndarray:
  """Pixels (..., 3), uint8 or float in [-1, 1], as differences from the background in the metric of the grader."""
  unit = pixels / np.float32(255) if pixels.dtype == np.uint8 else np.clip(pixels.astype(np.float32) / 2 + 0.5, 0, 1)
  return (unit - np.float32(BACKGROUND) / 255) @ _METRIC.T


def _nearest(ink_NP3: np.ndarray, templates: Templates):
  """For N cells: what the nearest template shows, an index of KINDS or NOTHING, RMS difference to it, and whether it is
  clear.

  A template is mask × ink, so all its squared distances come from one projection on each mask and channel."""
  rows_N, inks_C3 = np.arange(len(ink_NP3)), templates.inks_C3
  projections_NK3 = templates.masks_KP @ ink_NP3
  along_NT = np.pad((projections_NK3 @ inks_C3.T).reshape(len(ink_NP3), -1), ((0, 0), (0, 1)))
  distances_NT = np.einsum("npc,npc->n", ink_NP3, ink_NP3)[:, None] - 2 * along_NT + templates.squares_T
  best_N = distances_NT.argmin(1)
  kind_N = templates.kind_T[best_N]
  empty_N = kind_N == NOTHING
  mask_N, color_N = np.divmod(np.where(empty_N, 0, best_N), len(COLORS))
  nearest_N1 = distances_NT[rows_N, best_N, None]
  residual_N = np.sqrt(np.maximum(nearest_N1[:, 0], 0) / ink_NP3[0].size)

  products_NKC = templates.mask_products_KK[mask_N, :, None] * templates.ink_products_CC[color_N, None, :]
  products_NT = np.pad(products_NKC.reshape(len(ink_NP3), -1), ((0, 0), (0, 1))) * ~empty_N[:, None]
  # The same object at another place is no other object.
  apart_NT = templates.squares_T[best_N, None] + templates.squares_T - 2 * products_NT
  apart_NT[templates.kind_T == kind_N[:, None]] = np.inf
  between_N = (0.5 - (distances_NT - nearest_N1) / (2 * apart_NT)).max(1, where=apart_NT < np.inf, initial=0)

  # The color that fits the mask best; on the line, as a blurred object is paler but of no other color.
  mask_squares_N = np.diag(templates.mask_products_KK)[mask_N]
  fitted_N3 = projections_NK3[rows_N, mask_N] / mask_squares_N[:, None]
  ink_N3 = inks_C3[color_N]
  strength_N = np.minimum(np.einsum("nc,nc->n", fitted_N3, ink_N3) / np.einsum("nc,nc->n", ink_N3, ink_N3), 1)
  color_error_N = np.where(empty_N, 0, np.linalg.norm(fitted_N3 - strength_N[:, None] * ink_N3, axis=1))
  clear_N = (residual_N <= MAX_RESIDUAL) & (between_N <= MAX_BETWEEN) & (color_error_N <= MAX_COLOR_ERROR)
  return kind_N, residual_N, clear_N


def grade_many(images: np.ndarray, grid: int, shifts: Shifts = CENTERED) -> list[Graded]:
  """What N pictures show, cell by cell. ValueError on other shapes.

  Args:
    images: (N,S,S,3), uint8 or float in [-1, 1].
    shifts: how far from the center of its cell an object of each of SIZES may stand, in cells.
  """
  check_grid(grid)
  images = np.asarray(images)
  if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
    raise ValueError(f"grade: images have shape {images.shape}; expected (N, S, S, 3)")
  if images.dtype != np.uint8 and images.dtype.kind != "f":
    raise ValueError(f"grade: images are {images.dtype}; expected uint8, or float in [-1, 1]")
  num_images, image_size = images.shape[:2]
  templates = len(COLORS) * len(SHAPES) * sum(len(own) ** 2 for own in shifts)
  if num_images > (most := max(1, AT_A_TIME // templates)):
    parts = (images[start : start + most] for start in range(0, num_images, most))
    return [graded for part in parts for graded in grade_many(part, grid, shifts)]
  ink_NSS3 = _to_ink(images)
  objects, unclear = [[] for _ in images], [[] for _ in images]
  residuals = np.zeros((num_images, grid, grid), np.float32)
  for row, column in np.ndindex(grid, grid):
    where, geometry = cell_of(row, column, image_size, grid)
    ink_NP3 = ink_NSS3[:, *where].reshape(num_images, -1, 3)
    kind_N, residuals[:, row, column], clear_N = _nearest(ink_NP3, _templates(shifts, image_size / grid, *geometry))
    for n, (kind, clear) in enumerate(zip(kind_N.tolist(), clear_N.tolist())):
      if not clear:
        unclear[n].append((row, column))
      elif kind != NOTHING:
        objects[n].append(object_of(kind, row, column))
  return [Graded(Scene(grid, tuple(o)), tuple(u), r) for o, u, r in zip(objects, unclear, residuals)]


def grade(image: np.ndarray, grid: int, shifts: Shifts = CENTERED) -> Graded:
  """What one picture (S,S,3), uint8 or float in [-1, 1], shows."""
  return grade_many(np.asarray(image)[None], grid, shifts)[0]


# The kinds of mistakes that a picture may have, as `Score.mistakes` counts them.
MISTAKES = ("shape", "color", "size", "swapped", "position", "missing", "unclear", "extra")


@dataclass(frozen=True)
class Score:
  """How a picture answers a scene. `wrong` has one entry an expected object, in raster order: () if it is bound, else
  the attributes that are wrong: of "shape", "color", "size"; or "position" alone; or "missing"; or "unclear"."""

  wrong: tuple[tuple[str, ...], ...]
  swapped: tuple[bool, ...]  # of each expected object: it and another one, each in the other's cell
  extra: tuple[SceneObject, ...]  # objects nobody asked for
  unclear: tuple[tuple[int, int], ...]  # cells (row, column) that show nothing clearly

  @property
  def bound(self) -> tuple[bool, ...]:
    return tuple(not attributes for attributes in self.wrong)

  @property
  def exact(self) -> bool:
    return all(self.bound) and not self.extra and not self.unclear

  @property
  def mistakes(self) -> Counter[str]:
    """How often each of MISTAKES was made; none where the picture is exact.

    An object that was swapped counts as that alone, another one once for each attribute that is wrong. "position" has
    moved into a cell in which nothing was asked for, "extra" stands in one, and "unclear" are cells, asked for or not.
    """
    found = Counter()
    for attributes, swapped in zip(self.wrong, self.swapped):
      found.update(["swapped"] if swapped else attributes)
    found["unclear"], found["extra"] = len(self.unclear), len(self.extra)
    return +found


def score(expected: Scene, graded: Graded) -> Score:
  """Compares cell by cell; what is missing from its cell but stands, otherwise right, in an unasked one has moved."""
  if graded.scene.grid != expected.grid:
    raise ValueError(f"score: the picture was graded on grid {graded.scene.grid}, the scene has grid {expected.grid}")
  asked = {item.cell for item in expected.objects}
  seen = {item.cell: item for item in graded.scene.objects}
  extra = [item for item in graded.scene.objects if item.cell not in asked]
  wrong, swapped = [], _swapped(expected, seen)
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
  return Score(tuple(wrong), tuple(item in swapped for item in expected.objects), tuple(extra), graded.unclear)


def _swapped(expected: Scene, seen: Mapping[tuple[int, int], SceneObject]) -> set[SceneObject]:
  """The expected objects that stand in each other's cells, two and two, each of them once."""
  found = set()
  for one, other in itertools.combinations(expected.objects, 2):
    there = tuple(seen[item.cell].kind if item.cell in seen else None for item in (one, other))
    if there == (other.kind, one.kind) and one.kind != other.kind and not found & {one, other}:
      found |= {one, other}
  return found
