"""Changes of a scene, and the words that ask for them: each one can be meant in one way only.

What is to be changed is singled out by its attributes or its cell, or is "it": the object of the change before.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from omniimage.data.scenes.captions import SIZE_WORDS, places
from omniimage.data.scenes.wording import (
  Cost,
  an_object,
  an_object_bound,
  longest,
  pick,
  place_bound,
  reference,
  reference_bound,
  template_bound,
  to_place,
  to_place_bound,
)
from omniimage.data.scenes.world import COLORS, KINDS, NOTHING_ELSE, SHAPES, HeldOut, Scene, SceneObject, object_of

TRIES = 1000  # changes drawn until one leads to a scene of the split; every twentieth is of the test split

TEMPLATES = {
  "recolor": ("make {the} {color}", "paint {the} {color}", "turn {the} {color}"),
  "resize": ("make {the} {size}",),
  "reshape": ("make {the} a {shape}", "turn {the} into a {shape}"),
  "remove": ("remove {the}", "take {the} away"),
  "add": ("add {a} {place}", "put {a} {place}"),
  "move": ("move {the} {to}",),
  "swap": ("swap {the} and {other}", "swap {the} with {other}"),
}
_SIZES = {
  "small": ("smaller", *SIZE_WORDS["small"]),
  "large": ("larger", "bigger", *SIZE_WORDS["large"]),
}
# How a cell lies to "it", and where "it" goes: the neighbor (rows down, columns to the right).
_BESIDE = {
  (-1, 0): ("above it", "over it"),
  (1, 0): ("below it", "under it"),
  (0, -1): ("to the left of it", "left of it"),
  (0, 1): ("to the right of it", "right of it"),
}
_STEPS = {(-1, 0): "up", (1, 0): "down", (0, -1): "left", (0, 1): "right"}


@dataclass(frozen=True)
class Change:
  """What is asked for.

  Attributes:
    scene: after it.
    instruction: its words.
    it: the object that "it" means from here on; None if none was singled out.
  """

  scene: Scene
  instruction: str
  it: SceneObject | None


@dataclass(frozen=True)
class Draft:
  """A change that is not yet in words.

  Attributes:
    taken, put: objects of the scene that go and that come.
    slots: of the template, "a", "color", …; those that mean objects of the scene are told by `named`.
    named: "the", "other" → the object.
  """

  taken: tuple[SceneObject, ...]
  put: tuple[SceneObject, ...]
  slots: Mapping[str, str] = dataclasses.field(default_factory=dict)
  named: Mapping[str, SceneObject] = dataclasses.field(default_factory=dict)


def draw_change(
  scene: Scene, rng: np.random.Generator, it: SceneObject | None = None, held_out: HeldOut = NOTHING_ELSE
) -> Change:
  """A change of one of the kinds of `TEMPLATES`, which leaves something to see.

  The scene after it is of the same split, so that training paints no held-out scene; a scene of the test split that no
  change of `TRIES` leaves there (full ones of a small grid) leads to one of another.

  Args:
    it: an object of the scene that was spoken of before, if any.
  """
  split = held_out.split_of(scene)
  for tried in range(TRIES + 1):
    kind, draft = _draft(scene, it, rng)
    kept = tuple(item for item in scene.objects if item not in draft.taken)
    after = dataclasses.replace(scene, objects=kept + draft.put)
    if tried == TRIES or held_out.split_of(after) == split:
      break
  named = {name: "it" if item is it else reference(item, scene, rng) for name, item in draft.named.items()}
  instruction = pick(TEMPLATES[kind], rng).format(**named, **draft.slots)
  return Change(after, instruction, draft.put[0] if len(draft.put) == 1 else None)


def _draft(scene: Scene, it: SceneObject | None, rng: np.random.Generator) -> tuple[str, Draft]:
  """A kind of change that the scene allows, and one of it."""
  while True:
    kind = pick(tuple(DRAWN), rng)
    draft = DRAWN[kind](scene, it, rng)
    if draft is not None:
      return kind, draft


def change_bound(grid: int, cost: Cost, refers_back: bool = False) -> int:
  """Of the instructions of `draw_change`, with "it" or without."""
  beside = max(longest(phrases, cost) for phrases in _BESIDE.values()) if refers_back else 0
  steps = longest(_STEPS.values(), cost) if refers_back else 0
  the = reference_bound(grid, cost)
  slots = {
    "the": the,
    "other": the,
    "a": an_object_bound(cost),
    "color": longest(COLORS, cost),
    "shape": longest(SHAPES, cost),
    "size": max(longest(words, cost) for words in _SIZES.values()),
    "place": max(place_bound(grid, cost), beside),
    "to": max(to_place_bound(grid, cost), steps),
  }
  return max(template_bound(templates, cost, **slots) for templates in TEMPLATES.values())


# ----------------------------------------------------------------------------------------------------- the changes


def _any(scene: Scene, it: SceneObject | None, rng: np.random.Generator) -> SceneObject:
  """Rather "it" than another."""
  return it if it is not None and rng.random() < 0.7 else pick(scene.objects, rng)


def _changed(attribute: str, values: tuple[str, ...], words: Callable[[str, np.random.Generator], str]):
  """A change of one attribute of one object."""

  def draft(scene: Scene, it: SceneObject | None, rng: np.random.Generator) -> Draft:
    item = _any(scene, it, rng)
    value = pick([value for value in values if value != getattr(item, attribute)], rng)
    changed = dataclasses.replace(item, **{attribute: value})
    return Draft((item,), (changed,), {attribute: words(value, rng)}, {"the": item})

  return draft


def _removed(scene: Scene, it: SceneObject | None, rng: np.random.Generator) -> Draft | None:
  if len(scene.objects) < 2:
    return None
  item = _any(scene, it, rng)
  return Draft((item,), (), {}, {"the": item})


def _added(scene: Scene, it: SceneObject | None, rng: np.random.Generator) -> Draft | None:
  free = _free(scene)
  if not free:
    return None
  cell, place = pick(free, rng), None
  beside = [(side, there) for side, there in _neighbors(it) if there in free] if it else []
  if beside and rng.random() < 0.7:
    side, cell = pick(beside, rng)
    place = pick(_BESIDE[side], rng)
  item = object_of(int(rng.integers(len(KINDS))), *cell)
  return Draft((), (item,), {"a": an_object(item, rng), "place": place or pick(places(scene.grid)[cell], rng)})


def _moved(scene: Scene, it: SceneObject | None, rng: np.random.Generator) -> Draft | None:
  free = _free(scene)
  if not free:
    return None
  item = _any(scene, it, rng)
  cell, to = pick(free, rng), None
  steps = [(side, there) for side, there in _neighbors(it) if there in free] if item is it else []
  if steps and rng.random() < 0.7:
    side, cell = pick(steps, rng)
    to = _STEPS[side]
  moved = dataclasses.replace(item, row=cell[0], column=cell[1])
  return Draft((item,), (moved,), {"to": to or to_place(pick(places(scene.grid)[cell], rng))}, {"the": item})


def _swapped(scene: Scene, it: SceneObject | None, rng: np.random.Generator) -> Draft | None:
  item = _any(scene, it, rng)
  others = [other for other in scene.objects if other.kind != item.kind]
  if not others:
    return None
  other = pick(others, rng)
  put = (
    dataclasses.replace(item, row=other.row, column=other.column),
    dataclasses.replace(other, row=item.row, column=item.column),
  )
  return Draft((item, other), put, {}, {"the": item, "other": other})


def _free(scene: Scene) -> list[tuple[int, int]]:
  taken = {item.cell for item in scene.objects}
  return [cell for cell in np.ndindex(scene.grid, scene.grid) if cell not in taken]


def _neighbors(item: SceneObject) -> list[tuple[tuple[int, int], tuple[int, int]]]:
  """Sides and the cells there, some of them off the grid."""
  return [(side, (item.row + side[0], item.column + side[1])) for side in _STEPS]


# A draft of each kind of `TEMPLATES`: scene, "it", rng → what changes; None where it cannot be.
DRAWN: dict[str, Callable[[Scene, SceneObject | None, np.random.Generator], Draft | None]] = {
  "recolor": _changed("color", tuple(COLORS), lambda color, rng: color),
  "resize": _changed("size", tuple(_SIZES), lambda size, rng: pick(_SIZES[size], rng)),
  "reshape": _changed("shape", tuple(SHAPES), lambda shape, rng: shape),
  "remove": _removed,
  "add": _added,
  "move": _moved,
  "swap": _swapped,
}


# ------------------------------------------------------------------------------------------------- what was changed


def kind_of_change(before: Scene, after: Scene) -> str:
  """Of two scenes that one change lies between, its name in `TEMPLATES`."""
  gone, come = (set(one.objects) - set(other.objects) for one, other in ((before, after), (after, before)))
  if not gone or not come:
    return "remove" if gone else "add"
  if len(come) == 2:
    return "swap"
  (was,), (now,) = gone, come
  if was.cell != now.cell:
    return "move"
  names = {"color": "recolor", "size": "resize", "shape": "reshape"}
  return next(kind for name, kind in names.items() if getattr(was, name) != getattr(now, name))
