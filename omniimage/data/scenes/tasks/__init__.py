"""The tasks over scenes, by name. A new one is one file here and one row."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from omniimage.data.scenes.tasks.text_to_image import TextToImage
from omniimage.data.scenes.world import Scene
from omniimage.data.tasks import Task


class SceneTask(Task, Protocol):
  """A task whose records are scenes.

  Attributes:
    images: of a conversation, at most.
  """

  images: int

  def texts(self, record: Scene, rng: np.random.Generator) -> list[str]:
    """What `turns` says of a scene, of the same draws, without its pictures."""

  def words(self, num_objects: int) -> int:
    """At most so many words and punctuation marks has a conversation about so many objects."""


# What makes the task for scenes of a grid, drawn at an image size.
TASKS: dict[str, Callable[[int, int], SceneTask]] = {"text_to_image": TextToImage}
