"""The procedural world `scenes`: colored shapes on a grid, and how they are drawn.

A scene is a G×G grid (2 to 5) with at most one object a cell; an object is one of 8 shapes × 8 colors × 2 sizes at the
centre of its cell, or some pixels beside it (`Jitter`). Three maps, and the inverse of each that has one:

    draw_scene, scene_of    index   -> scene      HeldOut.split_of: by what is in the scene, and by a hash of it
    captions.caption        scene   -> English    captions.parse: exact on every caption of the grammar
    render                  scene   -> pixels     grader.grade: nearest template in every cell, no learned part
"""

import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

# Axes: S pixels of a side, G cells of a side.

GRIDS = (2, 3, 4, 5)
SIZES = {"small": 0.28, "large": 0.42}  # radius in cells; at most 0.42, so that objects never leave their pixels
# As far from each other, from the background and from every 50/50 blend of two of them as nameable colors get, in the
# grader's metric (49 of 255 at least): orange is not among them because a red-yellow blend would pass for it.
COLORS = {
  "red": (228, 30, 20),
  "yellow": (252, 204, 18),
  "green": (40, 168, 50),
  "cyan": (46, 210, 222),
  "blue": (21, 119, 240),
  "purple": (127, 30, 174),
  "pink": (255, 155, 222),
  "black": (30, 28, 38),
}
BACKGROUND = (246, 245, 240)
MIN_CELL = (
  6.25  # pixels; in smaller ones the margin around an object is under the half pixel a cell may lose to rounding
)


def _star(x, y):
  """Five points; folds the plane into one wedge, where the star is a half-plane."""
  angle = np.abs((np.arctan2(x, -y) * 5 / (2 * np.pi) + 0.5) % 1 - 0.5) * 2 * np.pi / 5
  radius, inner = np.hypot(x, y), 0.52
  inner_x, inner_y = inner * np.cos(np.pi / 5), inner * np.sin(np.pi / 5)
  return (radius * np.cos(angle) - 1) * inner_y <= radius * np.sin(angle) * (inner_x - 1)


def _heart(x, y):
  """Two discs and the wedge of their common tangents."""
  discs = np.hypot(abs(x) - 0.46, y + 0.38) <= 0.52
  return discs | ((abs(x) <= 0.854) & (y >= -0.38) & (0.757 * abs(x) + 0.653 * y <= 0.62))


# Inside or not, on x (to the right) and y (down) in units of the radius; every shape fits the box [-1, 1]².
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
  "circle": lambda x, y: np.hypot(x, y) <= 0.97,
  "square": lambda x, y: np.maximum(abs(x), abs(y)) <= 0.84,
  "triangle": lambda x, y: (y <= 0.82) & (2 * abs(x) <= 1.1 * (y + 1)),
  "star": _star,
  "cross": lambda x, y: (np.maximum(abs(x), abs(y)) <= 0.94) & (np.minimum(abs(x), abs(y)) <= 0.36),
  "diamond": lambda x, y: 1.12 * abs(x) + abs(y) <= 1,
  "heart": _heart,
  "ring": lambda x, y: abs(np.hypot(x, y) - 0.72) <= 0.26,
}

KINDS = tuple((shape, size, color) for shape in SHAPES for size in SIZES for color in COLORS)
EVERY_KIND = range(len(KINDS))
SPLITS = ("train", "test", "validation", "unseen")
TEST_SHARE = 20  # one scene in so many is of the test split


# ---------------------------------------------------------------------------------------------------------- scenes


@dataclass(frozen=True)
class SceneObject:
  shape: str
  color: str
  size: str
  row: int
  column: int

  def __post_init__(self):
    for name, table in (("shape", SHAPES), ("color", COLORS), ("size", SIZES)):
      if getattr(self, name) not in table:
        raise ValueError(f"SceneObject: unknown {name} {getattr(self, name)!r}; expected one of {', '.join(table)}")

  @property
  def cell(self) -> tuple[int, int]:
    return self.row, self.column

  @property
  def kind(self) -> tuple[str, str, str]:
    return self.shape, self.color, self.size


@dataclass(frozen=True, eq=False)
class Jitter:
  """Where objects stand in their cells: a place for each cell, whatever stands there, so that what an edit keeps stays
  where it is.

  Attributes:
    pixels: from the center, at most, in each direction; no object leaves its cell.
    draws: (G, G, 2) float in [0, 1), for rows and columns.
  """

  pixels: int
  draws: np.ndarray

  def offset(self, item: SceneObject, image_size: int, grid: int) -> tuple[int, int]:
    """Pixels down and to the right."""
    there = offsets(item.size, self.pixels, image_size, grid)
    down, right = (there[int(draw * len(there))] for draw in self.draws[item.cell])
    return down, right


@dataclass(frozen=True)
class Scene:
  """Objects on a grid×grid board, kept in raster order; where in its cell each stands makes no other scene of it.
  ValueError: unknown grid, outside the grid, a cell twice."""

  grid: int
  objects: tuple[SceneObject, ...]
  jitter: Jitter | None = field(default=None, compare=False, repr=False)

  def __post_init__(self):
    check_grid(self.grid)
    objects = tuple(sorted(self.objects, key=lambda item: item.cell))
    for item in objects:
      if not (0 <= item.row < self.grid and 0 <= item.column < self.grid):
        raise ValueError(f"Scene: {item} lies outside the {self.grid}x{self.grid} grid (rows and columns count from 0)")
    for first, second in itertools.pairwise(objects):
      if first.cell == second.cell:
        raise ValueError(f"Scene: two objects in row {first.row}, column {first.column}: {first} and {second}")
    object.__setattr__(self, "objects", objects)


def check_grid(grid: int) -> None:
  """ValueError where there is no such grid."""
  if grid not in GRIDS:
    raise ValueError(f"scenes: grid is {grid!r}; expected one of {GRIDS}")


@functools.cache  # 128 kinds × 25 cells at most
def object_of(kind: int, row: int, column: int) -> SceneObject:
  """The object of `KINDS[kind]` in a cell."""
  shape, size, color = KINDS[kind]
  return SceneObject(shape, color, size, row, column)


def draw_scene(rng: np.random.Generator, grid: int, num_objects: int, kinds: Sequence[int] = EVERY_KIND) -> Scene:
  """A scene of `num_objects` objects, uniform over cells and kinds. ValueError if they are none or do not fit.

  Args:
    kinds: indices of `KINDS` that there are.
  """
  check_grid(grid)
  if not 1 <= num_objects <= grid * grid:
    raise ValueError(f"scenes: {num_objects} objects on a {grid}x{grid} grid; expected 1 to {grid * grid}")
  cells = rng.permutation(grid * grid)[:num_objects].tolist()
  drawn = (kinds[i] for i in rng.integers(len(kinds), size=num_objects).tolist())
  return Scene(grid, tuple(object_of(kind, *divmod(cell, grid)) for kind, cell in zip(drawn, cells)))


# ---------------------------------------------------------------------------------------------------------- splits


@dataclass(frozen=True)
class HeldOut:
  """What training never shows: the scenes of the test split always, and what is held out beside them.

  Attributes:
    pairs: (color, shape) that no object has in the splits train, validation and test. A scene with such an object is
      of the split "unseen", whose records have no others.
    validation: share of the scenes of neither test nor unseen that are set aside to choose settings by.
  """

  pairs: frozenset[tuple[str, str]] = frozenset()
  validation: float = 0.0

  def split_of(self, scene: Scene) -> str:
    """The split a scene belongs to: by its pairs, else by a hash of what it shows."""
    if self.pairs and any((item.color, item.shape) in self.pairs for item in scene.objects):
      return "unseen"
    parts = [f"{item.size} {item.color} {item.shape} {item.row} {item.column}" for item in scene.objects]
    digest = hashlib.blake2b(";".join([str(scene.grid), *parts]).encode(), digest_size=8).digest()
    number, remainder = divmod(int.from_bytes(digest, "little"), TEST_SHARE)
    if remainder == 0:
      return "test"
    return "validation" if number % 2**20 < self.validation * 2**20 else "train"

  def tells(self, text: str) -> bool:
    """Whether a text names a pair that is never seen."""
    return any(f"{color} {shape}" in text for color, shape in self.pairs)

  def kinds(self, split: str) -> Sequence[int]:
    """Indices of `KINDS` that the scenes of a split are drawn from. ValueError where a split has no scenes."""
    if split not in SPLITS:
      raise ValueError(f"scenes: unknown split {split!r}; expected one of {', '.join(SPLITS)}")
    found = _kinds(self.pairs, split == "unseen")
    if not found or (split == "validation" and not self.validation):
      raise ValueError(f"scenes: the split {split!r} has no scenes where {self} is held out")
    return found


@functools.cache
def _kinds(pairs: frozenset[tuple[str, str]], unseen: bool) -> tuple[int, ...]:
  return tuple(i for i, (shape, _, color) in enumerate(KINDS) if ((color, shape) in pairs) == unseen)


NOTHING_ELSE = HeldOut()  # than the test split


def split_of(scene: Scene) -> str:
  """The split a scene belongs to where nothing else is held out: "test" for about 1 scene in 20, else "train"."""
  return NOTHING_ELSE.split_of(scene)


def num_objects_of(index: int, *, min_objects: int, max_objects: int) -> int:
  """The number of objects of record `index`, without drawing its scene."""
  if not 1 <= min_objects <= max_objects:
    raise ValueError(f"scenes: from {min_objects} to {max_objects} objects; expected 1 <= min_objects <= max_objects")
  return min_objects + index % (max_objects - min_objects + 1)


def scene_of(
  index: int,
  split: str,
  *,
  grid: int,
  min_objects: int,
  max_objects: int,
  held_out: HeldOut = NOTHING_ELSE,
  jitter: int = 0,
) -> Scene:
  """The scene of record `index` (0 and up, without end) of a split. Pure; no scene is in two splits.

  Args:
    jitter: pixels from the centers of cells, at most.
  """
  kinds = held_out.kinds(split)
  rng = np.random.default_rng((1 + SPLITS.index(split), index))
  num_objects = num_objects_of(index, min_objects=min_objects, max_objects=max_objects)
  while held_out.split_of(scene := draw_scene(rng, grid, num_objects, kinds)) != split:
    pass
  return Scene(grid, scene.objects, Jitter(jitter, rng.random((grid, grid, 2)))) if jitter else scene


# ---------------------------------------------------------------------------------------------------------- pixels


# How far from its cell's center an object may stand along an axis, in cells, for each of SIZES.
Shifts = tuple[tuple[float, ...], ...]
CENTERED: Shifts = ((0.0,),) * len(SIZES)


@functools.cache
def offsets(size: str, jitter: int, image_size: int, grid: int) -> range:
  """Whole pixels from the center of its cell at which an object of a size may stand: `jitter` at most, and inside."""
  cell = image_size / grid
  room = (0.5 - SIZES[size]) * cell - (0 if image_size % grid == 0 else 0.5)  # half a pixel may be lost to rounding
  most = max(min(jitter, math.floor(room + 1e-9)), 0)
  return range(-most, most + 1)


def cell_span(image_size: int, grid: int, index: int) -> tuple[int, int, float]:
  """(first pixel, one past the last, the cell's centre from the first) of a row or column: each cell owns the pixels
  whose centres lie in it, so the cells part the image even where they are not whole pixels wide."""
  if image_size < MIN_CELL * grid:
    raise ValueError(f"scenes: image_size {image_size} is too small for a {grid}x{grid} grid: {MIN_CELL} pixels a cell")
  start, stop = ((2 * edge * image_size + grid) // (2 * grid) for edge in (index, index + 1))
  return start, stop, ((2 * index + 1) * image_size - 2 * grid * start) / (2 * grid)


@functools.lru_cache(maxsize=2048)
def coverage(shape: str, size: str, cell: float, height: int, width: int, center_y: float, center_x: float):
  """The share of each pixel the shape covers, (height, width) float32 in [0, 1], by supersampling."""
  samples = 8 if cell <= 64 else 4
  radius = SIZES[size] * cell
  y = ((np.arange(height * samples, dtype=np.float32) + 0.5) / samples - center_y) / radius
  x = ((np.arange(width * samples, dtype=np.float32) + 0.5) / samples - center_x) / radius
  inside = SHAPES[shape](*np.meshgrid(x, y))
  return inside.reshape(height, samples, width, samples).mean((1, 3), dtype=np.float32)


@functools.lru_cache(maxsize=4096)
def _sprite(color: str, *geometry) -> np.ndarray:
  """The pixels (h,w,3) uint8 of a cell that holds an object."""
  return np.round(BACKGROUND + coverage(*geometry)[..., None] * np.subtract(COLORS[color], BACKGROUND)).astype(np.uint8)


@functools.lru_cache(maxsize=1024)
def cell_of(row: int, column: int, image_size: int, grid: int):
  """Where in the image a cell lies, two slices, and its height, width and center (y, x) in pixels."""
  top, bottom, center_y = cell_span(image_size, grid, row)
  left, right, center_x = cell_span(image_size, grid, column)
  return (slice(top, bottom), slice(left, right)), (bottom - top, right - left, center_y, center_x)


def placed(item: SceneObject, scene: Scene, image_size: int):
  """Where in the image an object's cell lies, and what `coverage` is asked for: shape, size, cell, height, width and
  the object's own center."""
  where, (height, width, center_y, center_x) = cell_of(item.row, item.column, image_size, scene.grid)
  if scene.jitter is not None:
    down, right = scene.jitter.offset(item, image_size, scene.grid)
    center_y, center_x = center_y + down, center_x + right
  return where, (item.shape, item.size, image_size / scene.grid, height, width, center_y, center_x)


@functools.lru_cache(maxsize=16)
def _blank(image_size: int) -> np.ndarray:
  return np.broadcast_to(np.uint8(BACKGROUND), (image_size, image_size, 3)).copy()


def render(scene: Scene, image_size: int) -> np.ndarray:
  """The picture of a scene, (S,S,3) uint8, antialiased. ValueError if a cell has fewer than 6.25 pixels."""
  image = _blank(image_size).copy()
  for item in scene.objects:
    where, geometry = placed(item, scene, image_size)  # cells of one geometry share their sprites
    image[where] = _sprite(item.color, *geometry)
  return image


@dataclass(frozen=True)
class World:
  """The scenes of a run, as its tasks see them.

  Attributes:
    image_size: pixels of a side.
    jitter: of objects in their cells, in pixels at most.
  """

  grid: int
  image_size: int
  jitter: int = 0
  held_out: HeldOut = NOTHING_ELSE

  @property
  def shifts(self) -> Shifts:
    """Where objects may stand, as the grader is told."""
    cell = self.image_size / self.grid
    return tuple(tuple(x / cell for x in offsets(size, self.jitter, self.image_size, self.grid)) for size in SIZES)
