"""How the texts of the tasks are worded: phrases that single an object out, templates, and how long they can become.

A bound counts as its caller does: `cost` says of a phrase how many words, or how many tokens, it has within a text.
"""

import functools
import itertools
import re
import string
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from omniimage.data.scenes.captions import SIZE_WORDS, places
from omniimage.data.scenes.world import COLORS, SHAPES, Scene, SceneObject

T = TypeVar("T")
Cost = Callable[[str], int]

ATTRIBUTES = ("size", "color", "shape")  # in the order in which English has them
NOUN = "one"  # what is called by no shape: "the red one"


def pick(options: Sequence[T], rng: np.random.Generator) -> T:
  """One of them, each as likely."""
  return options[int(rng.random() * len(options))]


def count_words(text: str) -> int:
  """Words and punctuation marks."""
  return len(re.findall(r"\w+|[^\w\s]", text))


def longest(phrases: Iterable[str], cost: Cost) -> int:
  return max(map(cost, phrases))


def template_bound(templates: Iterable[str], cost: Cost, **slots: int) -> int:
  """The longest that any of the templates becomes, `{name}` in it being at most `slots[name]` long."""
  bounds = []
  for template in templates:
    parts = list(string.Formatter().parse(template))
    said = sum(cost(literal) for literal, *_ in parts)
    bounds.append(said + sum(slots[name] for _, name, *_ in parts if name is not None))
  return max(bounds)


# ------------------------------------------------------------------------------------------------------ one object


def attribute_words(attribute: str, value: str) -> tuple[str, ...]:
  """The words that mean this value."""
  return SIZE_WORDS[value] if attribute == "size" else (value,)


def described(item: SceneObject, attributes: Sequence[str], rng: np.random.Generator) -> str:
  """The object by these of its attributes, without an article: "big red star", "red one"."""
  words = [pick(attribute_words(name, getattr(item, name)), rng) for name in attributes]
  return " ".join(words if "shape" in attributes else [*words, NOUN])


def described_bound(attributes: Sequence[str], cost: Cost) -> int:
  """Of `described` with these attributes or some of them; with none, of "one"."""
  words = {
    "size": [word for own in SIZE_WORDS.values() for word in own],
    "color": list(COLORS),
    "shape": list(SHAPES),
  }
  nouns = [*words["shape"], NOUN] if "shape" in attributes else [NOUN]
  return sum(longest(words[name], cost) for name in attributes if name != "shape") + longest(nouns, cost)


def an_object(item: SceneObject, rng: np.random.Generator) -> str:
  """All that it looks like: "a large red star"."""
  return f"a {described(item, ATTRIBUTES, rng)}"


def an_object_bound(cost: Cost) -> int:
  return cost("a") + described_bound(ATTRIBUTES, cost)


# ------------------------------------------------------------------------------------------------------ references


@functools.cache
def subsets(attributes: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
  """Some of these attributes, at least one, in every way."""
  sizes = range(1, len(attributes) + 1)
  return tuple(subset for size in sizes for subset in itertools.combinations(attributes, size))


class Reference(NamedTuple):
  """A phrase that means one object of a scene and no other, and by what: some of `ATTRIBUTES`, or its cell if none."""

  phrase: str
  told: tuple[str, ...]


def refer(
  item: SceneObject,
  scene: Scene,
  rng: np.random.Generator,
  attributes: tuple[str, ...] = ATTRIBUTES,
  by_place: bool = True,
) -> Reference | None:
  """ "the star", "the big red one", "the one in the center".

  Args:
    attributes: that may be told.
    by_place: whether its cell may be told; always possible, so that only without it there may be no such phrase: None.
  """
  others = [other for other in scene.objects if other is not item]
  ways = [
    told for told in subsets(attributes) if not any(all(_same(item, other, name) for name in told) for other in others)
  ]
  if by_place:
    ways += [(), ()]
  if not ways:
    return None
  told = pick(ways, rng)
  if told:
    return Reference(f"the {described(item, told, rng)}", told)
  noun = pick((item.shape, NOUN), rng) if "shape" in attributes else NOUN
  return Reference(f"the {noun} {pick(places(scene.grid)[item.cell], rng)}", ())


def reference(
  item: SceneObject, scene: Scene, rng: np.random.Generator, attributes: tuple[str, ...] = ATTRIBUTES
) -> str:
  """The phrase of `refer`, its cell being something that may be told."""
  return refer(item, scene, rng, attributes).phrase


def reference_bound(grid: int, cost: Cost, attributes: tuple[str, ...] = ATTRIBUTES, by_place: bool = True) -> int:
  by_attributes = described_bound(attributes, cost)
  noun = described_bound(("shape",) if "shape" in attributes else (), cost)
  return cost("the") + max(by_attributes, noun + place_bound(grid, cost) if by_place else 0)


def _same(item: SceneObject, other: SceneObject, attribute: str) -> bool:
  return getattr(item, attribute) == getattr(other, attribute)


# ---------------------------------------------------------------------------------------------------------- places


def place_bound(grid: int, cost: Cost) -> int:
  return longest((phrase for phrases in places(grid).values() for phrase in phrases), cost)


def to_place(place: str) -> str:
  """ "in the center" → "to the center"."""
  _, where = place.split(" ", 1)
  return f"to {where}"


def to_place_bound(grid: int, cost: Cost) -> int:
  return longest((to_place(phrase) for phrases in places(grid).values() for phrase in phrases), cost)
