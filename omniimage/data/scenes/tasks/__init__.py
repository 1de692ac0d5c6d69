"""The tasks over scenes, by name. A new one is one file here and one row."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from omniimage.data.scenes.tasks.caption import Caption
from omniimage.data.scenes.tasks.conversation import Conversation
from omniimage.data.scenes.tasks.edit import Edit
from omniimage.data.scenes.tasks.questions import Questions
from omniimage.data.scenes.tasks.sketch import Sketch
from omniimage.data.scenes.tasks.text_to_image import TextToImage
from omniimage.data.scenes.wording import Cost
from omniimage.data.scenes.world import Scene, World
from omniimage.data.tasks import Task


class SceneTask(Task, Protocol):
  """A task whose records are scenes.

  Attributes:
    images: of a conversation, at most.
    exchanges: of a conversation: a turn of the user and the answer.
  """

  images: int
  exchanges: int

  def texts(self, record: Scene, rng: np.random.Generator) -> list[str]:
    """What `turns` says of a scene, of the same draws, without its pictures."""

  def bound(self, num_objects: int, cost: Cost) -> int:
    """The most words, or tokens, of all texts of a conversation about so many objects; `cost` counts a phrase."""


# What makes the task for the scenes of a world.
TASKS: dict[str, Callable[[World], SceneTask]] = {
  "text_to_image": TextToImage,
  "caption": Caption,
  "questions": Questions,
  "edit": Edit,
  "sketch": Sketch,
  "conversation": Conversation,
}
