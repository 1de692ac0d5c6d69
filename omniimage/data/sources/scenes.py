"""The procedural world, `omniimage.data.scenes`, by one of its tasks."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from omniimage.data import conversation
from omniimage.data.conversation import Tokenizer, Turn
from omniimage.data.scenes.distinct import distinct_scenes
from omniimage.data.scenes.tasks import TASKS, SceneTask
from omniimage.data.scenes.world import MIN_CELL, draw_scene, scene_of
from omniimage.data.sources.source import Catalogue, Source, SourceSettings
from omniimage.errors import SettingsError, require
from omniimage.ranges import Range
from omniimage.size import Size

RECORDS = {"train": 2**20, "test": 2**14}  # the world is endless, an epoch is not
SAMPLED_CONVERSATIONS = 512  # from which the words of the scenes are collected


@dataclass(frozen=True)
class ScenesSettings(SourceSettings):
  grid: Annotated[int, Range(2, 5)]
  min_objects: Annotated[int, Range(1, 25)]
  max_objects: Annotated[int, Range(1, 25)]

  def __post_init__(self):
    super().__post_init__()
    require(
      self.min_objects <= self.max_objects <= self.grid**2,
      f"data.source: min_objects={self.min_objects} <= max_objects={self.max_objects} <= grid² must hold",
    )


class ScenesSource(Source):
  def __init__(
    self,
    settings: ScenesSettings,
    split: str,
    sizes: Sequence[Size],
    text_tokenizer: Tokenizer,
    task: str = "text_to_image",
  ):
    """`task`: a name in `scenes.tasks.TASKS`."""
    size = sizes[0]
    image_size = size.side
    if image_size < MIN_CELL * settings.grid:
      raise SettingsError(
        f"data.image_size={image_size} is too small for data.source.grid={settings.grid}: a cell needs "
        f"{MIN_CELL} pixels; enlarge the images, or give the grid fewer cells"
      )
    self._world = {"grid": settings.grid, "min_objects": settings.min_objects, "max_objects": settings.max_objects}
    self._split, self._size = split, size
    self._task = TASKS[task](settings.grid, image_size)
    self.tasks = (self._task,)
    objects = range(settings.min_objects, settings.max_objects + 1)
    tokens_a_word = _tokens_a_word(settings, self._task, text_tokenizer)
    self._text_bounds = np.array([tokens_a_word * self._task.words(n) for n in objects])

  def __len__(self) -> int:
    return RECORDS[self._split]

  def catalogue(self) -> Catalogue:
    text = np.resize(self._text_bounds, len(self))  # record i has min_objects + i % (max − min + 1) objects
    images = np.full(len(self), self._task.images)
    return Catalogue(conversation.length(text, images, self._size), images)

  def record(self, index: int, rng: np.random.Generator) -> list[Turn]:
    return self._task.turns(scene_of(index, self._split, **self._world), rng)

  def task(self, index: int) -> SceneTask:
    return self._task

  def distinct(self) -> Iterable[int]:
    return (record for record, _ in distinct_scenes(self._split, len(self), **self._world))


def _tokens_a_word(settings: ScenesSettings, task: SceneTask, text_tokenizer: Tokenizer) -> int:
  """The most tokens that a word or punctuation mark of these scenes' texts takes: 1 in the vocabulary we ship."""
  rng, grid, objects = np.random.default_rng(0), settings.grid, settings.max_objects
  spoken = [task.texts(draw_scene(rng, grid, objects), rng) for _ in range(SAMPLED_CONVERSATIONS)]
  words = {word for texts in spoken for text in texts for word in re.findall(r"\w+|[^\w\s]", text)}

  def tokens(*texts: str) -> int:
    return sum(len(text_tokenizer.encode(text)) for text in texts)

  # Behind another word, as most of them are, with the space that belongs to it.
  most = max(tokens(f"a {word}" if word.isalnum() else f"a{word}") - tokens("a") for word in words)
  longest = max(spoken, key=lambda texts: tokens(*texts))
  if tokens(*longest) > most * task.words(objects):
    raise SettingsError(
      f"data.vocabulary merges across words: {' '.join(longest)!r} takes {tokens(*longest)} tokens, more than {most} a "
      "word; use a tokenizer.json that splits text into words first"
    )
  return most
