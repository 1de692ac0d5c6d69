"""What scenes are called in English: captions that vary, and the parser that reads every one of them back."""

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from omniimage.data.scenes.world import COLORS, GRIDS, SHAPES, Scene, SceneObject, check_grid, draw_scene

_OPENINGS = ("", "", "there is ", "a picture of ", "an image with ")
_ENDINGS = ("", ".")
JOINERS = ((", ", " and "), (", ", ", and "), ("; ", "; "), (" and ", " and "))  # between objects, before the last
_ARTICLES = ("a", "one")
SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big")}


@functools.cache
def places(grid: int) -> dict[tuple[int, int], tuple[str, ...]]:
  """The ways to name each cell; no phrase names two cells."""
  if grid > 3:
    forms = ("in row {0}, column {1}", "at row {0}, column {1}", "in column {1} of row {0}")
    cells = [(row, column) for row in range(grid) for column in range(grid)]
    return {cell: tuple(form.format(cell[0] + 1, cell[1] + 1) for form in forms) for cell in cells}
  middle = [("center", "middle")] if grid == 3 else []
  rows = [("top", "upper"), *middle, ("bottom", "lower")]
  columns = [("left",), *middle, ("right",)]
  named = {}
  for r, row_names in enumerate(rows):
    for c, column_names in enumerate(columns):
      if row_names == column_names:
        names = row_names
      else:
        names = tuple(f"{row} {column}" for row in row_names for column in column_names)
      named[r, c] = tuple(f"{preposition} the {name}" for preposition in ("in", "at") for name in names)
  return named


def caption(
  scene: Scene, rng: np.random.Generator, openings: Sequence[str] = _OPENINGS, is_shuffled: bool = True
) -> str:
  """One of many English descriptions, from which `parse` reads the scene back; objects in random order, or row by
  row."""
  if not scene.objects:
    raise ValueError("caption: the scene has no objects")
  names = places(scene.grid)
  draws = iter(rng.random(3 * len(scene.objects) + 3).tolist())  # one call: scalar draws would cost more than the rest

  def pick(options):
    return options[int(next(draws) * len(options))]

  opening, ending, joiners = pick(openings), pick(_ENDINGS), pick(JOINERS)
  objects = scene.objects
  told = [objects[i] for i in rng.permutation(len(objects))] if is_shuffled else sorted(objects, key=lambda o: o.cell)
  phrases = [
    f"{pick(_ARTICLES)} {pick(SIZE_WORDS[item.size])} {item.color} {item.shape} {pick(names[item.cell])}"
    for item in told
  ]
  return opening + joined(phrases, joiners) + ending


def _object(grid: int) -> str:
  """The regular expression of an object: its groups are size, color, shape and place."""
  sizes = _any_of(word for words in SIZE_WORDS.values() for word in words)
  where = _any_of(place for phrases in places(grid).values() for place in phrases)
  return f"(?:{_any_of(_ARTICLES)}) ({sizes}) ({_any_of(COLORS)}) ({_any_of(SHAPES)}) ({where})"


@functools.cache
def _object_pattern(grid: int) -> re.Pattern:
  """An object of a caption, and what joins it to the next."""
  return re.compile(f"{_object(grid)}(?:{_any_of({joiner for pair in JOINERS for joiner in pair})}|$)")


@functools.cache
def _told_pattern(grid: int) -> re.Pattern:
  """An object anywhere in a text."""
  return re.compile(rf"\b{_object(grid)}\b")


def _any_of(words: Iterable[str]) -> str:
  return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))


def parse(text: str, grid: int) -> Scene:
  """The scene a caption describes. ValueError names the word or the phrase that was not understood."""
  check_grid(grid)
  size_of = {word: size for size, words in SIZE_WORDS.items() for word in words}
  cell_of = {phrase: cell for cell, phrases in places(grid).items() for phrase in phrases}
  pattern = _object_pattern(grid)
  rest = " ".join(text.lower().split()).removesuffix(".")
  rest = rest.removeprefix(next(opening for opening in _OPENINGS[::-1] if rest.startswith(opening)))
  objects = []
  while rest or not objects:
    match = pattern.match(rest)
    if not match:
      known = set(re.findall(r"\w+", pattern.pattern))
      unknown = [word for word in re.findall(r"\w+", rest) if word not in known]
      example = f"a large red star {places(grid)[0, 0][0]}"
      raise ValueError(
        f"caption: {unknown[0] if unknown else rest!r} is not understood in {text!r}; "
        f"an object of a {grid}x{grid} scene reads like {example!r}"
      )
    size, color, shape, place = match.groups()
    objects.append(SceneObject(shape, color, size_of[size], *cell_of[place]))
    rest = rest[match.end() :]
  return Scene(grid, tuple(objects))


def read(text: str, grid: int) -> tuple[list[SceneObject], str]:
  """What any text says of a scene, as far as it is worded as a caption: the objects in the order in which they are
  told, of which several may be of one cell, and what else it says."""
  size_of = {word: size for size, words in SIZE_WORDS.items() for word in words}
  cell_of = {phrase: cell for cell, phrases in places(grid).items() for phrase in phrases}
  text, end, objects, others = " ".join(text.lower().split()), 0, [], []
  joiners = {joiner.strip() for pair in JOINERS for joiner in pair}
  for match in _told_pattern(grid).finditer(text):
    size, color, shape, place = match.groups()
    between = text[end : match.start()].strip()
    if between not in (joiners if objects else {opening.strip() for opening in _OPENINGS}):
      others.append(between or match.group())
    objects.append(SceneObject(shape, color, size_of[size], *cell_of[place]))
    end = match.end()
  if text[end:].strip() not in _ENDINGS:
    others.append(text[end:].strip())
  return objects, " … ".join(others)


def caption_bound(num_objects: int, grid: int, cost: Callable[[str], int], openings: Sequence[str] = _OPENINGS) -> int:
  """An upper bound of the length of any caption of `num_objects` objects, `cost` being that of a phrase within it."""

  def longest(phrases):
    return max(map(cost, phrases))

  parts = (_ARTICLES, [word for words in SIZE_WORDS.values() for word in words], COLORS, SHAPES)
  place = longest(phrase for phrases in places(grid).values() for phrase in phrases)
  return (
    longest(openings)
    + num_objects * (sum(map(longest, parts)) + place)
    + joined_bound(num_objects, cost)
    + longest(_ENDINGS)
  )


def joined(phrases: Sequence[str], joiners: tuple[str, str]) -> str:
  """A list in English, by one of `JOINERS`."""
  between, last = joiners
  return between.join(phrases[:-1]) + last + phrases[-1] if len(phrases) > 1 else phrases[0]


def joined_bound(number: int, cost: Callable[[str], int]) -> int:
  """Of what stands between so many phrases."""
  between, last = (max(map(cost, joiners)) for joiners in zip(*JOINERS))
  return max(number - 2, 0) * between + (number > 1) * last


def vocabulary_captions(n: int, seed: int) -> Iterator[str]:
  """`n` captions over all grids and numbers of objects, to train a text vocabulary on."""
  rng = np.random.default_rng(seed)
  for index in range(n):
    grid = GRIDS[index % len(GRIDS)]
    yield caption(draw_scene(rng, grid, int(rng.integers(1, grid * grid + 1))), rng)
