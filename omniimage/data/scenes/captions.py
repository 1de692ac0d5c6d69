"""What scenes are called in English: captions that vary, and the parser that reads every one of them back."""

import functools
import re
from collections.abc import Iterator

import numpy as np

from omniimage.data.scenes.world import COLORS, GRIDS, SHAPES, Scene, SceneObject, check_grid, draw_scene

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
  check_grid(grid)
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
