"""Questions about scenes and their answers, of even chances: yes as often as no, and counts as varied as the scene is.

An answer can be told with what it rests on: where in the picture is what the question names, object by object and
word by word (Nye et al. 2021, "Show Your Work"). Questions are worded in many ways, answers in one.

"above" is in a higher row, whatever the column; "left of" in a column further left, whatever the row.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from omniimage.data.scenes.captions import places
from omniimage.data.scenes.wording import (
  ATTRIBUTES,
  Cost,
  an_object_bound,
  attribute_words,
  described,
  described_bound,
  longest,
  pick,
  place_bound,
  refer,
  reference_bound,
  template_bound,
)
from omniimage.data.scenes.world import COLORS, NOTHING_ELSE, SHAPES, SIZES, HeldOut, Scene, SceneObject

NOTHING = "nothing"
TRIES = 100  # questions drawn until one names no pair that is held out
_VALUES = {"size": tuple(SIZES), "color": tuple(COLORS), "shape": tuple(SHAPES)}
_PLURALS = {shape: "crosses" if shape == "cross" else f"{shape}s" for shape in SHAPES}
_SIDES: dict[str, Callable[[SceneObject, SceneObject], bool]] = {
  "above": lambda one, other: one.row < other.row,
  "below": lambda one, other: one.row > other.row,
  "left of": lambda one, other: one.column < other.column,
  "to the left of": lambda one, other: one.column < other.column,
  "right of": lambda one, other: one.column > other.column,
  "to the right of": lambda one, other: one.column > other.column,
}
_COUNTS = ("how many {some}?", "how many {some} are there?")
_TEMPLATES = {
  "cell": ("what is {place}?",),
  "exists": ("is there a {thing}?",),
  "side": ("is there a {thing} {side} {the}?",),
  "attribute": ("what {attribute} is {the}?",),
  "where": ("where is {the}?",),
  "more": ("are there more {some} than {others}?",),
  "larger": ("is {the} larger than {other}?", "is {the} bigger than {other}?"),
  "smaller": ("is {the} smaller than {other}?",),
}


@dataclass(frozen=True)
class Meant:
  """What a phrase of a question means: the objects of these values of some `ATTRIBUTES`, or what is in a cell."""

  values: tuple[tuple[str, str], ...] = ()
  cell: tuple[int, int] | None = None

  def found(self, scene: Scene) -> str:
    """ "top left red? red yes; center red? blue no", row by row and up to the first word that an object is not."""
    if self.cell is not None:
      there = self.cell in {item.cell for item in scene.objects}
      return f"{_name_of_place(self.cell, scene.grid)} {_yes(there)}"
    return "; ".join(self._of(item, scene.grid) for item in _in_order(scene.objects))

  def _of(self, item: SceneObject, grid: int) -> str:
    words = [_name_of_place(item.cell, grid)]
    for name, value in self.values:
      own = getattr(item, name)
      words.append(f"{_plain_word(name, value)}? {_plain_word(name, own)}")
      if own != value:
        return " ".join([*words, "no"])
    return " ".join([*words, "yes"])


@dataclass(frozen=True)
class Asked:
  """A question and its answer.

  Attributes:
    about: what its phrases mean.
    decides: what of the objects that were found decides, "top and center", if anything does.
  """

  question: str
  answer: str
  about: tuple[Meant, ...]
  decides: str = ""

  def reasoned(self, scene: Scene) -> str:
    """ "top left red? red yes; center red? blue no: 1"."""
    return ": ".join(filter(None, (*(one.found(scene) for one in self.about), self.decides, self.answer)))


def draw_question(scene: Scene, rng: np.random.Generator, held_out: HeldOut = NOTHING_ELSE) -> Asked:
  """A question of one of the kinds of `QUESTIONS` about a scene of at least one object, and its answer.

  Of scenes without pairs that are held out it names none, not even as what is not there.
  """
  may_tell = held_out.split_of(scene) == "unseen" if held_out.pairs else True
  while True:
    kind = pick(QUESTIONS, rng)
    asked = kind.ask(scene, rng)
    if asked is not None and not may_tell and held_out.tells(asked.question):
      # Another of the same answer: yes stays as likely as no.
      others = (kind.ask(scene, rng) for _ in range(TRIES))
      same = (other for other in others if other is not None and other.answer == asked.answer)
      asked = next((other for other in same if not held_out.tells(other.question)), None)
    if asked is not None:
      return asked


def phrase_bound(num_objects: int, grid: int, cost: Cost) -> int:
  """Of a question and its reasoned answer, for each of the phrases that it is about."""
  values = sum(2 * longest((_plain_word(name, value) for value in own), cost) for name, own in _VALUES.items())
  place = _name_bound(grid, cost)
  looked_at = place + values + len(_VALUES) * cost("?") + _yes_bound(cost) + cost(";")
  found = max(num_objects * looked_at, place + _yes_bound(cost)) + cost(":")
  return found + max(math.ceil(kind.bound(grid, cost) / kind.phrases) for kind in QUESTIONS)


# ------------------------------------------------------------------------------------------------------- what there is


def _in_cell(scene: Scene, rng: np.random.Generator) -> Asked:
  """What is in the bottom left? Nothing, in half of the questions to scenes with room."""
  there = {item.cell: item for item in scene.objects}
  free = [cell for cell in np.ndindex(scene.grid, scene.grid) if cell not in there]
  cell = pick(free if free and rng.random() < 0.5 else list(there), rng)
  question = pick(_TEMPLATES["cell"], rng).format(place=pick(places(scene.grid)[cell], rng))
  return Asked(question, _plainly(there[cell]) if cell in there else NOTHING, (Meant(cell=cell),))


def _in_cell_bound(grid: int, cost: Cost) -> int:
  return template_bound(_TEMPLATES["cell"], cost, place=place_bound(grid, cost)) + max(
    an_object_bound(cost), cost(NOTHING)
  )


def _how_many(scene: Scene, rng: np.random.Generator) -> Asked:
  """How many red shapes? Each number that some attribute has in the scene is as likely."""
  by_count: dict[int, list] = {}
  for attribute, values in _VALUES.items():
    for value in values:
      by_count.setdefault(_count(scene, attribute, value), []).append((attribute, value))
  count = pick(sorted(by_count), rng)
  attribute, value = pick(by_count[count], rng)
  question = pick(_COUNTS, rng).format(some=_plural(attribute, value, rng))
  return Asked(question, str(count), (Meant(((attribute, value),)),))


def _how_many_bound(grid: int, cost: Cost) -> int:
  return template_bound(_COUNTS, cost, some=_plural_bound(cost)) + longest(map(str, range(grid**2 + 1)), cost)


def _exists(scene: Scene, rng: np.random.Generator) -> Asked | None:
  """Is there a red star? What is not there differs in one attribute from something that is."""
  item, told = pick(scene.objects, rng), pick((("color", "shape"), ("size", "shape"), ATTRIBUTES), rng)
  there = {_values(other, told) for other in scene.objects}
  near = [dataclasses.replace(item, **{name: value}) for name in told for value in _VALUES[name]]
  absent = [other for other in near if _values(other, told) not in there]
  if not absent:
    return None
  yes = rng.random() < 0.5
  asked = item if yes else pick(absent, rng)
  question = pick(_TEMPLATES["exists"], rng).format(thing=described(asked, told, rng))
  return Asked(question, _yes(yes), (_meant(asked, told),))


def _exists_bound(grid: int, cost: Cost) -> int:
  thing = described_bound(ATTRIBUTES, cost)
  return template_bound(_TEMPLATES["exists"], cost, thing=thing) + _yes_bound(cost)


# ---------------------------------------------------------------------------------------------- one object alone


def _attribute(scene: Scene, rng: np.random.Generator) -> Asked:
  """What color is the star?"""
  name, item = pick(ATTRIBUTES, rng), pick(scene.objects, rng)
  the = refer(item, scene, rng, tuple(other for other in ATTRIBUTES if other != name))
  question = pick(_TEMPLATES["attribute"], rng).format(attribute=name, the=the.phrase)
  where = _name_of_place(item.cell, scene.grid) if the.told else ""
  return Asked(question, _plain_word(name, getattr(item, name)), (_meant(item, the.told),), where)


def _attribute_bound(grid: int, cost: Cost) -> int:
  bounds = []
  for name in ATTRIBUTES:
    the = reference_bound(grid, cost, tuple(other for other in ATTRIBUTES if other != name))
    words = (attribute_words(name, value)[0] for value in _VALUES[name])
    bounds.append(template_bound(_TEMPLATES["attribute"], cost, attribute=cost(name), the=the) + longest(words, cost))
  return max(bounds) + _name_bound(grid, cost) + cost(":")


def _where(scene: Scene, rng: np.random.Generator) -> Asked | None:
  """Where is the star?"""
  item = pick(scene.objects, rng)
  the = refer(item, scene, rng, by_place=False)
  if the is None:
    return None
  question = pick(_TEMPLATES["where"], rng).format(the=the.phrase)
  return Asked(question, places(scene.grid)[item.cell][0], (_meant(item, the.told),))


def _where_bound(grid: int, cost: Cost) -> int:
  the = reference_bound(grid, cost, by_place=False)
  return template_bound(_TEMPLATES["where"], cost, the=the) + place_bound(grid, cost)


# --------------------------------------------------------------------------------------------------------- comparisons


def _beside(scene: Scene, rng: np.random.Generator) -> Asked | None:
  """Is there a star above the ring? Both are there, whatever the answer."""
  if len(scene.objects) < 2:
    return None
  base, item = (scene.objects[i] for i in rng.permutation(len(scene.objects))[:2])
  the = refer(base, scene, rng, by_place=False)
  told = pick((("shape",), ("color", "shape"), ATTRIBUTES), rng)
  alike = [other for other in scene.objects if other is not base and _values(other, told) == _values(item, told)]
  sides = {side: any(holds(other, base) for other in alike) for side, holds in _SIDES.items()}
  if the is None or len(set(sides.values())) < 2:
    return None
  yes = rng.random() < 0.5
  side = pick([side for side, holds in sides.items() if holds == yes], rng)
  question = pick(_TEMPLATES["side"], rng).format(thing=described(item, told, rng), side=side, the=the.phrase)
  deciding = next(other for other in _in_order(alike) if _SIDES[side](other, base) == yes)
  lines = (_line(one, side in ("above", "below"), scene.grid) for one in (deciding, base))
  return Asked(question, _yes(yes), (_meant(item, told), _meant(base, the.told)), _both(*lines))


def _beside_bound(grid: int, cost: Cost) -> int:
  slots = {"thing": described_bound(ATTRIBUTES, cost), "side": longest(_SIDES, cost)}
  the = reference_bound(grid, cost, by_place=False)
  lines = (
    _line(SceneObject("star", "red", "small", i, i), is_row, grid) for i in range(grid) for is_row in (True, False)
  )
  return template_bound(_TEMPLATES["side"], cost, **slots, the=the) + _both_bound(lines, cost) + _yes_bound(cost)


def _more(scene: Scene, rng: np.random.Generator) -> Asked | None:
  """Are there more red shapes than blue shapes? Never of as many."""
  name = pick(ATTRIBUTES, rng)
  counts = {value: _count(scene, name, value) for value in _VALUES[name]}
  more = pick([value for value, count in counts.items() if count], rng)
  others = [value for value, count in counts.items() if count < counts[more]]
  if not others:
    return None
  pair = more, pick(others, rng)
  yes = rng.random() < 0.5
  asked = pair if yes else pair[::-1]
  some, other = (_plural(name, value, rng) for value in asked)
  question = pick(_TEMPLATES["more"], rng).format(some=some, others=other)
  return Asked(question, _yes(yes), tuple(Meant(((name, value),)) for value in asked))


def _more_bound(grid: int, cost: Cost) -> int:
  some = _plural_bound(cost)
  return template_bound(_TEMPLATES["more"], cost, some=some, others=some) + _yes_bound(cost)


def _larger(scene: Scene, rng: np.random.Generator) -> Asked | None:
  """Is the star larger than the ring? Never of the same size."""
  of_size = [[item for item in scene.objects if item.size == size] for size in ("large", "small")]
  if not all(of_size):
    return None
  large, small = (pick(items, rng) for items in of_size)
  yes, word = rng.random() < 0.5, pick(("larger", "smaller"), rng)
  one, other = (large, small) if yes == (word == "larger") else (small, large)
  first, second = (refer(item, scene, rng, ("color", "shape")) for item in (one, other))
  question = pick(_TEMPLATES[word], rng).format(the=first.phrase, other=second.phrase)
  return Asked(
    question,
    _yes(yes),
    (_meant(one, first.told), _meant(other, second.told)),
    _both(*(_sized(item, scene.grid) for item in (one, other))),
  )


def _larger_bound(grid: int, cost: Cost) -> int:
  the = reference_bound(grid, cost, ("color", "shape"))
  templates = _TEMPLATES["larger"] + _TEMPLATES["smaller"]
  sized = (_sized(SceneObject("star", "red", size, *cell), grid) for cell in places(grid) for size in SIZES)
  return template_bound(templates, cost, the=the, other=the) + _both_bound(sized, cost) + _yes_bound(cost)


# --------------------------------------------------------------------------------------------------------------- words


def _meant(item: SceneObject, told: Sequence[str]) -> Meant:
  """By these of its attributes, or by its cell if there are none."""
  return Meant(tuple((name, getattr(item, name)) for name in told)) if told else Meant(cell=item.cell)


def _plain_word(attribute: str, value: str) -> str:
  """The first of those that mean the same."""
  return attribute_words(attribute, value)[0]


def _plainly(item: SceneObject) -> str:
  """All that it looks like."""
  return f"a {' '.join(_plain_word(name, getattr(item, name)) for name in ATTRIBUTES)}"


def _name_of_place(cell: tuple[int, int], grid: int) -> str:
  """ "top left", of "in the top left"; "row 2, column 3"."""
  return places(grid)[cell][0].removeprefix("in ").removeprefix("the ")


def _name_bound(grid: int, cost: Cost) -> int:
  return longest((_name_of_place(cell, grid) for cell in places(grid)), cost)


def _line(item: SceneObject, is_row: bool, grid: int) -> str:
  """The row of an object, or its column, in the words of its place: "top", "row 1"."""
  index = item.row if is_row else item.column
  if grid > 3:
    return f"{'row' if is_row else 'column'} {index + 1}"
  first, last = ("top", "bottom") if is_row else ("left", "right")
  return (first, *["center"] * (grid - 2), last)[index]


def _both(one: str, other: str) -> str:
  return f"{one} and {other}"


def _sized(item: SceneObject, grid: int) -> str:
  return f"{_name_of_place(item.cell, grid)} {_plain_word('size', item.size)}"


def _both_bound(words: Iterable[str], cost: Cost) -> int:
  return 2 * longest(words, cost) + cost("and") + cost(":")


def _in_order(found: Iterable[SceneObject]) -> list[SceneObject]:
  """Row by row."""
  return sorted(found, key=lambda item: item.cell)


def _yes(yes: bool) -> str:
  return "yes" if yes else "no"


def _yes_bound(cost: Cost) -> int:
  return longest(("yes", "no"), cost)


def _plural(attribute: str, value: str, rng: np.random.Generator) -> str:
  return _PLURALS[value] if attribute == "shape" else f"{pick(attribute_words(attribute, value), rng)} shapes"


def _plural_bound(cost: Cost) -> int:
  words = [word for name in ("size", "color") for value in _VALUES[name] for word in attribute_words(name, value)]
  return max(longest(_PLURALS.values(), cost), longest(words, cost) + cost("shapes"))


def _count(scene: Scene, attribute: str, value: str) -> int:
  return sum(getattr(item, attribute) == value for item in scene.objects)


def _values(item: SceneObject, attributes: tuple[str, ...]) -> tuple[str, ...]:
  return tuple(getattr(item, name) for name in attributes)


@dataclass(frozen=True)
class Kind:
  """Of a question.

  Attributes:
    ask: of a scene; None where it cannot be asked of it.
    bound: of question and answer together, without what it rests on, on a grid.
    phrases: that it is about.
  """

  ask: Callable[[Scene, np.random.Generator], Asked | None]
  bound: Callable[[int, Cost], int]
  phrases: int = 1


QUESTIONS = (
  Kind(_in_cell, _in_cell_bound),
  Kind(_how_many, _how_many_bound),
  Kind(_exists, _exists_bound),
  Kind(_attribute, _attribute_bound),
  Kind(_where, _where_bound),
  Kind(_beside, _beside_bound, phrases=2),
  Kind(_more, _more_bound, phrases=2),
  Kind(_larger, _larger_bound, phrases=2),
)
