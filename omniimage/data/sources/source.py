"""What a data set must answer to be trained on and evaluated."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from omniimage.data.conversation import Turn
from omniimage.data.tasks import Task
from omniimage.ranges import Ranged

SPLITS = ("train", "test")


class Source(Protocol):
  """Records of a split. Which task a record is, its index decides, as it decides its length.

  Attributes:
    tasks: all that its records are.
  """

  tasks: tuple[Task, ...]

  def __len__(self) -> int: ...

  def lengths(self) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, images) of every record, both (n,): no draw of the record has more. Tokens count images and `<eos>`.

    Known before a record is read, over all the captions it may get, so that rows are packed from numbers alone.
    """

  def record(self, index: int, rng: np.random.Generator) -> list[Turn]:
    """The turns of a record; `rng` draws what varies between epochs. May raise: the record is then left out."""

  def task(self, index: int) -> Task:
    """The task of a record, one of `tasks`."""

  def distinct(self) -> Iterable[int]:
    """Indices of records, in order, without those that are known to show what one before them does."""


@dataclass(frozen=True)
class SourceSettings(Ranged):
  """Base of the settings of a source."""

  name: str  # of its row in the table


@dataclass(frozen=True)
class Row:
  """A source of the table.

  Attributes:
    settings: its dataclass, a group `data.source` of configs.
    open: (settings, split, size of its images, text_tokenizer) → source. SettingsError where they do not fit.
  """

  settings: type[SourceSettings]
  open: Callable[..., Source]
