"""What a data set must answer to be trained on and evaluated."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from omniimage.data.conversation import Turn
from omniimage.data.tasks import Task
from omniimage.ranges import Ranged

SPLITS = ("train", "test")


@dataclass(frozen=True, eq=False)
class Catalogue:
  """What is known of all records before any is read, so that rows are packed from numbers alone.

  Attributes:
    tokens: (n,) int. No draw of the record has more, over all the captions it may get; images and `<eos>` count.
    images: (n,) int, likewise.
    buckets: (n,) int, which of the sizes the record's images have; None: the first.
    parts: how many records each part of a mixture has, one part after the other, and how often one of it is drawn;
      empty: there is one part.
  """

  tokens: np.ndarray
  images: np.ndarray
  buckets: np.ndarray | None = None
  parts: tuple[tuple[int, float], ...] = ()


class Source(ABC):
  """Records of a split. Which task a record is, its index decides, as it decides its length.

  Attributes:
    tasks: all that its records are.
  """

  tasks: tuple[Task, ...]

  @abstractmethod
  def __len__(self) -> int: ...

  @abstractmethod
  def catalogue(self) -> Catalogue: ...

  @abstractmethod
  def record(self, index: int, rng: np.random.Generator) -> list[Turn]:
    """The turns of a record, its images of the size of its bucket; `rng` draws what varies between epochs. May raise:
    the record is then left out."""

  @abstractmethod
  def task(self, index: int) -> Task:
    """The task of a record, one of `tasks`."""

  def key(self, index: int) -> str:
    """Where the owner of the data finds the record. Of one that cannot be read too."""
    return f"record {index}"

  def distinct(self) -> Iterable[int]:
    """Indices of records, in order, without those that are known to show what one before them does."""
    return range(len(self))


@dataclass(frozen=True)
class SourceSettings(Ranged):
  """Base of the settings of a source."""

  name: str  # of its row in the table


@dataclass(frozen=True)
class Row:
  """A source of the table.

  Attributes:
    settings: its dataclass, a group `data.source` of configs.
    open: (settings, split, sizes that images may have, text_tokenizer) → source. SettingsError where they do not fit.
    open_codes: (stored codes, settings, …) → the same records, the images of their turns in codes; None where codes of
      such a source cannot be stored.
  """

  settings: type[SourceSettings]
  open: Callable[..., Source]
  open_codes: Callable[..., Source] | None = None
