"""The procedural world `scenes`: colored shapes on a grid, their captions, and an exact grader of pictures.

A scene is a G×G grid (2 to 5) with at most one object a cell; an object is one of 8 shapes × 8 colors × 2 sizes at the
centre of its cell. Three maps, and the inverse of each that has one:

    draw_scene, scene_of    index   -> scene      split_of: the held-out scenes are decided by a hash of the scene
    caption                 scene   -> English    parse:    exact on every caption of the grammar
    render                  scene   -> pixels     grade:    nearest template in every cell, no learned part

`score` compares what was asked with what the grader saw: the attribute-binding accuracy of an image generator.
"""

import functools
import hashlib
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

# Axes: N images, S pixels of a side, P pixels of a cell, K coverage masks (shape × size), C colors, T templates.

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

_KINDS = tuple((shape, size, color) for shape in SHAPES for size in SIZES for color in COLORS)


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


@dataclass(frozen=True)
class Scene:
  """Objects on a grid×grid board, kept in raster order. ValueError: unknown grid, outside the grid, a cell twice."""

  grid: int
  objects: tuple[SceneObject, ...]

  def __post_init__(self):
    _check_grid(self.grid)
    objects = tuple(sorted(self.objects, key=lambda item: item.cell))
    for item in objects:
      if not (0 <= item.row < self.grid and 0 <= item.column < self.grid):
        raise ValueError(f"Scene: {item} lies outside the {self.grid}x{self.grid} grid (rows and columns count from 0)")
    for first, second in itertools.pairwise(objects):
      if first.cell == second.cell:
        raise ValueError(f"Scene: two objects in row {first.row}, column {first.column}: {first} and {second}")
    object.__setattr__(self, "objects", objects)


def _check_grid(grid: int) -> None:
  if grid not in GRIDS:
    raise ValueError(f"scenes: grid is {grid!r}; expected one of {GRIDS}")


@functools.cache  # 128 kinds × 25 cells at most
def _object(kind: int, row: int, column: int) -> SceneObject:
  shape, size, color = _KINDS[kind]
  return SceneObject(shape, color, size, row, column)


def draw_scene(rng: np.random.Generator, grid: int, num_objects: int) -> Scene:
  """A scene of `num_objects` objects, uniform over cells and kinds. ValueError if they are none or do not fit."""
  _check_grid(grid)
  if not 1 <= num_objects <= grid * grid:
    raise ValueError(f"scenes: {num_objects} objects on a {grid}x{grid} grid; expected 1 to {grid * grid}")
  cells = rng.permutation(grid * grid)[:num_objects].tolist()
  kinds = rng.integers(len(_KINDS), size=num_objects).tolist()
  return Scene(grid, tuple(_object(kind, *divmod(cell, grid)) for kind, cell in zip(kinds, cells)))


def split_of(scene: Scene) -> str:
  """The split a scene belongs to, by a hash of what it shows: "test" for about 1 scene in 20, else "train"."""
  parts = [f"{item.size} {item.color} {item.shape} {item.row} {item.column}" for item in scene.objects]
  digest = hashlib.blake2b(";".join([str(scene.grid), *parts]).encode(), digest_size=8).digest()
  return "test" if int.from_bytes(digest, "little") % 20 == 0 else "train"


def num_objects_of(index: int, *, min_objects: int, max_objects: int) -> int:
  """The number of objects of record `index`, without drawing its scene."""
  if not 1 <= min_objects <= max_objects:
    raise ValueError(f"scenes: from {min_objects} to {max_objects} objects; expected 1 <= min_objects <= max_objects")
  return min_objects + index % (max_objects - min_objects + 1)


def scene_of(index: int, split: str, *, grid: int, min_objects: int, max_objects: int) -> Scene:
  """The scene of record `index` (0 and up, without end) of a split. Pure; no scene is in both splits."""
  if split not in ("train", "test"):
    raise ValueError(f"scenes: unknown split {split!r}; expected 'train' or 'test'")
  rng = np.random.default_rng((1 if split == "train" else 2, index))
  num_objects = num_objects_of(index, min_objects=min_objects, max_objects=max_objects)
  while split_of(scene := draw_scene(rng, grid, num_objects)) != split:
    pass
  return scene


# -------------------------------------------------------------------------------------------------------- captions

_OPENINGS = ("", "", "there is ", "a picture of ", "an image with ")
_ENDINGS = ("", ".")
_JOINERS = ((", ", " and "), (", ", ", and "), ("; ", "; "), (" and ", " and "))  # between objects, before the last
_ARTICLES = ("a", "one")
_SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big")}


@functools.cache
def _places(grid: int) -> dict[tuple[int, int], tuple[str, ...]]:
  """The ways to name each cell; no phrase names two cells."""
  if grid > 3:
    forms = ("in row {0}, column {1}", "at row {0}, column {1}", "in column {1} of row {0}")
    cells = [(row, column) for row in range(grid) for column in range(grid)]
    return {cell: tuple(form.format(cell[0] + 1, cell[1] + 1) for form in forms) for cell in cells}
  middle = [("center", "middle")] if grid == 3 else []
  rows = [("top", "upper"), *middle, ("bottom", "lower")]
  columns = [("left",), *middle, ("right",)]
  places = {}
  for r, row_names in enumerate(rows):
    for c, column_names in enumerate(columns):
      if row_names == column_names:
        names = row_names
      else:
        names = tuple(f"{row} {column}" for row in row_names for column in column_names)
      places[r, c] = tuple(f"{preposition} the {name}" for preposition in ("in", "at") for name in names)
  return places


def caption(scene: Scene, rng: np.random.Generator) -> str:
  """One of many English descriptions, objects in random order, from which `parse` reads the scene back."""
  if not scene.objects:
    raise ValueError("caption: the scene has no objects")
  places = _places(scene.grid)
  draws = iter(rng.random(3 * len(scene.objects) + 3).tolist())  # one call: scalar draws would cost more than the rest

  def pick(options):
    return options[int(next(draws) * len(options))]

  opening, ending, (joiner, last_joiner) = pick(_OPENINGS), pick(_ENDINGS), pick(_JOINERS)
  phrases = [
    f"{pick(_ARTICLES)} {pick(_SIZE_WORDS[item.size])} {item.color} {item.shape} {pick(places[item.cell])}"
    for item in (scene.objects[i] for i in rng.permutation(len(scene.objects)))
  ]
  listed = joiner.join(phrases[:-1]) + last_joiner + phrases[-1] if len(phrases) > 1 else phrases[0]
  return opening + listed + ending


@functools.cache
def _object_pattern(grid: int) -> re.Pattern:
  def any_of(words):
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))

  sizes = any_of(word for words in _SIZE_WORDS.values() for word in words)
  places = any_of(place for phrases in _places(grid).values() for place in phrases)
  joiners = any_of({joiner for pair in _JOINERS for joiner in pair})
  return re.compile(
    f"(?:{any_of(_ARTICLES)}) ({sizes}) ({any_of(COLORS)}) ({any_of(SHAPES)}) ({places})(?:{joiners}|$)"
  )


def parse(text: str, grid: int) -> Scene:
  """The scene a caption describes. ValueError names the word or the phrase that was not understood."""
  _check_grid(grid)
  size_of = {word: size for size, words in _SIZE_WORDS.items() for word in words}
  cell_of = {phrase: cell for cell, phrases in _places(grid).items() for phrase in phrases}
  pattern = _object_pattern(grid)
  rest = " ".join(text.lower().split()).removesuffix(".")
  rest = rest.removeprefix(next(opening for opening in _OPENINGS[::-1] if rest.startswith(opening)))
  objects = []
  while rest or not objects:
    match = pattern.match(rest)
    if not match:
      known = set(re.findall(r"\w+", pattern.pattern))
      unknown = [word for word in re.findall(r"\w+", rest) if word not in known]
      example = f"a large red star {_places(grid)[0, 0][0]}"
      raise ValueError(
        f"caption: {unknown[0] if unknown else rest!r} is not understood in {text!r}; "
        f"an object of a {grid}x{grid} scene reads like {example!r}"
      )
    size, color, shape, place = match.groups()
    objects.append(SceneObject(shape, color, size_of[size], *cell_of[place]))
    rest = rest[match.end() :]
  return Scene(grid, tuple(objects))


def caption_words(num_objects: int, grid: int) -> int:
  """An upper bound of the words and punctuation marks of any caption of `num_objects` objects."""

  def longest(phrases):
    return max(len(re.findall(r"\w+|[^\w\s]", phrase)) for phrase in phrases)

  place = longest(phrase for phrases in _places(grid).values() for phrase in phrases)
  joiner, last_joiner = (longest(joiners) for joiners in zip(*_JOINERS))
  joined = max(num_objects - 2, 0) * joiner + (num_objects > 1) * last_joiner
  return longest(_OPENINGS) + num_objects * (4 + place) + joined + longest(_ENDINGS)  # 4: a large red star


def vocabulary_captions(n: int, seed: int) -> Iterator[str]:
  """`n` captions over all grids and numbers of objects, to train a text vocabulary on."""
  rng = np.random.default_rng(seed)
  for index in range(n):
    grid = GRIDS[index % len(GRIDS)]
    yield caption(draw_scene(rng, grid, int(rng.integers(1, grid * grid + 1))), rng)


# ---------------------------------------------------------------------------------------------------------- pixels


def _span(image_size: int, grid: int, index: int) -> tuple[int, int, float]:
  """(first pixel, one past the last, the cell's centre from the first) of a row or column: each cell owns the pixels
  whose centres lie in it, so the cells part the image even where they are not whole pixels wide."""
  if image_size < MIN_CELL * grid:
    raise ValueError(f"scenes: image_size {image_size} is too small for a {grid}x{grid} grid: {MIN_CELL} pixels a cell")
  start, stop = ((2 * edge * image_size + grid) // (2 * grid) for edge in (index, index + 1))
  return start, stop, ((2 * index + 1) * image_size - 2 * grid * start) / (2 * grid)


@functools.lru_cache(maxsize=2048)
def _coverage(shape: str, size: str, cell: float, height: int, width: int, center_y: float, center_x: float):
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
  return np.round(BACKGROUND + _coverage(*geometry)[..., None] * np.subtract(COLORS[color], BACKGROUND)).astype(
    np.uint8
  )


@functools.lru_cache(maxsize=8192)
def _placed(item: SceneObject, grid: int, image_size: int) -> tuple[tuple[slice, slice], np.ndarray]:
  """Where in the image an object's cell lies, and its sprite; cells of one geometry share their sprites."""
  top, bottom, center_y = _span(image_size, grid, item.row)
  left, right, center_x = _span(image_size, grid, item.column)
  geometry = item.shape, item.size, image_size / grid, bottom - top, right - left, center_y, center_x
  return (slice(top, bottom), slice(left, right)), _sprite(item.color, *geometry)


@functools.lru_cache(maxsize=16)
def _blank(image_size: int) -> np.ndarray:
  return np.broadcast_to(np.uint8(BACKGROUND), (image_size, image_size, 3)).copy()


def render(scene: Scene, image_size: int) -> np.ndarray:
  """The picture of a scene, (S,S,3) uint8, antialiased. ValueError if a cell has fewer than 6.25 pixels."""
  image = _blank(image_size).copy()
  for item in scene.objects:
    where, pixels = _placed(item, scene.grid, image_size)
    image[where] = pixels
  return image


# ---------------------------------------------------------------------------------------------------------- grader

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
    [_coverage(shape, size, cell, height, width, center_y, center_x).ravel() for shape in SHAPES for size in SIZES]
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
  empty_N = best_N == len(_KINDS)
  mask_N, color_N = np.divmod(np.where(empty_N, 0, best_N), len(COLORS))
  fitted_N3 = projections_NK3[rows_N, mask_N] / np.einsum("kp,kp->k", masks_KP, masks_KP)[mask_N, None]
  ink_N3 = inks_C3[color_N]
  strength_N = np.minimum(np.einsum("nc,nc->n", fitted_N3, ink_N3) / np.einsum("nc,nc->n", ink_N3, ink_N3), 1)
  color_error_N = np.where(empty_N, 0, np.linalg.norm(fitted_N3 - strength_N[:, None] * ink_N3, axis=1))
  clear_N = (residual_N <= MAX_RESIDUAL) & (between_NT.max(1) <= MAX_BETWEEN) & (color_error_N <= MAX_COLOR_ERROR)
  return best_N, residual_N, clear_N


def grade_many(images: np.ndarray, grid: int) -> list[Graded]:
  """What N pictures show, cell by cell. images: (N,S,S,3), uint8 or float in [-1, 1]. ValueError on other shapes."""
  _check_grid(grid)
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
    top, bottom, center_y = _span(image_size, grid, row)
    left, right, center_x = _span(image_size, grid, column)
    templates = _templates(image_size / grid, bottom - top, right - left, center_y, center_x)
    ink_NP3 = ink_NSS3[:, top:bottom, left:right].reshape(num_images, -1, 3)
    best_N, residuals[:, row, column], clear_N = _nearest(ink_NP3, *templates)
    for n, (kind, clear) in enumerate(zip(best_N.tolist(), clear_N.tolist())):
      if not clear:
        unclear[n].append((row, column))
      elif kind < len(_KINDS):
        objects[n].append(_object(kind, row, column))
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
