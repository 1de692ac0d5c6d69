"""The procedural world, `omniimage.data.scenes`, by some of its tasks, one after the other."""

import functools
import heapq
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from omniimage.data import conversation
from omniimage.data.conversation import Tokenizer, Turn
from omniimage.data.scenes.distinct import distinct_scenes
from omniimage.data.scenes.tasks import TASKS, SceneTask
from omniimage.data.scenes.wording import Cost
from omniimage.data.scenes.world import COLORS, MIN_CELL, SHAPES, HeldOut, World, draw_scene, scene_of
from omniimage.data.sources.source import Catalogue, Source, SourceSettings
from omniimage.errors import SettingsError, require
from omniimage.ranges import Range
from omniimage.size import Size

# The world is endless, an epoch is not. Training reads the first two; the others are for who opens the source so.
RECORDS = {"train": 2**20, "test": 2**14, "validation": 2**14, "unseen": 2**14}
SAMPLED_CONVERSATIONS = 64  # of a task, whose tokens are counted


@dataclass(frozen=True)
class ScenesSettings(SourceSettings):
  grid: Annotated[int, Range(2, 5)]
  min_objects: Annotated[int, Range(1, 25)]
  max_objects: Annotated[int, Range(1, 25)]
  tasks: tuple[str, ...]  # of the records, in turn, in `scenes.tasks.TASKS`; twice: twice as often
  # Pixels that objects stand beside the centers of their cells, at most, as far as those have room.
  jitter: Annotated[int, Range(0, 8)] = 0
  unseen: tuple[str, ...] = ()  # "red star": colors of shapes that neither training nor test shows together
  validation: Annotated[float, Range(0, 0.5)] = 0.0  # share of the scenes set aside to choose settings by

  def __post_init__(self):
    super().__post_init__()
    there_are = f"the tasks over scenes are {', '.join(TASKS)}"
    require(bool(self.tasks), f"data.source.tasks is empty: {there_are}")
    for name in self.tasks:
      require(name in TASKS, f"data.source.tasks has {name!r}, but {there_are}")
    require(
      self.min_objects <= self.max_objects <= self.grid**2,
      f"data.source: min_objects={self.min_objects} <= max_objects={self.max_objects} <= grid² must hold",
    )
    pairs = {f"{color} {shape}" for color in COLORS for shape in SHAPES}
    for name in self.unseen:
      require(name in pairs, f"data.source.unseen has {name!r}; expected a color and a shape, as 'red star'")
    seen = {word for name in pairs.difference(self.unseen) for word in name.split()}
    for word in (*COLORS, *SHAPES):
      require(word in seen, f"data.source.unseen leaves nothing to learn {word!r} from; take some of it out")

  @property
  def held_out(self) -> HeldOut:
    pairs = frozenset(tuple(name.split()) for name in self.unseen)
    return HeldOut(pairs, self.validation)


class ScenesSource(Source):
  """Record i is of the task number i % T of the settings' T. Each task goes through the scenes 0, 1, 2, … of the split
  in its own time, so that how many objects a scene has does not hang on the task."""

  def __init__(self, settings: ScenesSettings, split: str, sizes: Sequence[Size], text_tokenizer: Tokenizer):
    """Besides "train" and "test" there are the splits "validation" and "unseen", of what the settings hold out.
    ValueError where they hold out nothing for a split."""
    size = sizes[0]
    image_size = size.side
    if image_size < MIN_CELL * settings.grid:
      raise SettingsError(
        f"data.image_size={image_size} is too small for data.source.grid={settings.grid}: a cell needs "
        f"{MIN_CELL} pixels; enlarge the images, or give the grid fewer cells"
      )
    held_out = settings.held_out
    held_out.kinds(split)
    numbers = {"grid": settings.grid, "min_objects": settings.min_objects, "max_objects": settings.max_objects}
    self._drawn = {**numbers, "held_out": held_out, "jitter": settings.jitter}
    self._split, self._size, self._names = split, size, settings.tasks
    world = World(settings.grid, image_size, settings.jitter, held_out)
    self._tasks = {name: TASKS[name](world) for name in dict.fromkeys(settings.tasks)}
    self.tasks = tuple(self._tasks.values())
    self._places = {name: [i for i, own in enumerate(self._names) if own == name] for name in self._tasks}
    cost = functools.cache(functools.partial(phrase_tokens, text_tokenizer))
    objects = range(settings.min_objects, settings.max_objects + 1)
    for task in self.tasks:
      _check_bound(settings, task, text_tokenizer, cost)
    self._text_bounds = {name: np.array([task.bound(n, cost) for n in objects]) for name, task in self._tasks.items()}

  def __len__(self) -> int:
    return RECORDS[self._split]

  def catalogue(self) -> Catalogue:
    text, images, exchanges = np.empty((3, len(self)), int)
    for place, name in enumerate(self._names):
      own = slice(place, None, len(self._names))
      scenes = self._scene_number(np.arange(place, len(self), len(self._names)))
      bounds = self._text_bounds[name]
      text[own] = bounds[scenes % len(bounds)]  # scene i has min_objects + i % (max − min + 1) objects
      images[own], exchanges[own] = self._tasks[name].images, self._tasks[name].exchanges
    return Catalogue(conversation.length(text, images, self._size, exchanges), images)

  def record(self, index: int, rng: np.random.Generator) -> list[Turn]:
    scene = scene_of(int(self._scene_number(index)), self._split, **self._drawn)
    return self.task(index).turns(scene, rng)

  def task(self, index: int) -> SceneTask:
    return self._tasks[self._names[index % len(self._names)]]

  def distinct(self) -> Iterable[int]:
    """Without those that show a scene which a record of the same task before them does."""
    return heapq.merge(*map(self._distinct, self._tasks))

  def _scene_number(self, index):
    """Of a record, or of an array of records that are all of one task: its place among the records of the task."""
    places = self._places[self._names[int(np.ravel(index)[0]) % len(self._names)]]
    turn, place = np.divmod(index, len(self._names))
    return turn * len(places) + np.searchsorted(places, place)

  def _distinct(self, name: str) -> Iterable[int]:
    places = self._places[name]
    records = sum(len(range(place, len(self), len(self._names))) for place in places)
    for number, _ in distinct_scenes(self._split, records, **self._drawn):
      turn, place = divmod(number, len(places))
      yield turn * len(self._names) + places[place]


def phrase_tokens(text_tokenizer: Tokenizer, phrase: str) -> int:
  """Tokens of a phrase within a text, word by word: each at the beginning of a text or behind another word, whichever
  are more; marks behind a word."""

  def tokens(text: str) -> int:
    return len(text_tokenizer.encode(text))

  def of_word(word: str) -> int:
    return max(tokens(f"a {word}") - tokens("a"), tokens(word)) if word.isalnum() else tokens(f"a{word}") - tokens("a")

  return sum(of_word(word) for word in re.findall(r"\w+|[^\w\s]", phrase))


def _check_bound(settings: ScenesSettings, task: SceneTask, text_tokenizer: Tokenizer, cost: Cost):
  """SettingsError where texts have more tokens than their words."""
  rng, bound = np.random.default_rng(0), task.bound(settings.max_objects, cost)
  for _ in range(SAMPLED_CONVERSATIONS):
    texts = task.texts(draw_scene(rng, settings.grid, settings.max_objects), rng)
    tokens = sum(len(text_tokenizer.encode(text)) for text in texts)
    if tokens > bound:
      raise SettingsError(
        f"data.vocabulary merges across words: {' '.join(texts)!r} takes {tokens} tokens, more than the {bound} of its "
        "words; use a tokenizer.json that splits text into words first"
      )
