"""Several sources as one: their records one after another, each source drawn from by its weight."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from omniimage.data.conversation import Tokenizer, Turn
from omniimage.data.sources.source import Catalogue, Source, SourceSettings
from omniimage.data.tasks import Task
from omniimage.errors import SettingsError, require
from omniimage.ranges import Range
from omniimage.size import Size


@dataclass(frozen=True)
class MixtureSettings(SourceSettings):
  sources: tuple[SourceSettings, ...]
  weights: tuple[
    Annotated[float, Range(1e-6, 1e6)], ...
  ]  # one a source, in any unit: 3 and 1 draw 3 of 4 from the first

  def __post_init__(self):
    super().__post_init__()
    require(
      len(self.sources) == len(self.weights) > 0,
      f"data.source: {len(self.sources)} sources and {len(self.weights)} weights; give one weight for each source",
    )


class MixtureSource(Source):
  """Record i of the first source is record i, those of the second follow, and so on."""

  def __init__(self, settings: MixtureSettings, split: str, sizes: Sequence[Size], text_tokenizer: Tokenizer):
    from omniimage.data.sources import SOURCES  # of which this is a row

    self._weights = settings.weights
    self._sources = [SOURCES[own.name].open(own, split, sizes, text_tokenizer) for own in settings.sources]
    for number, (source, own) in enumerate(zip(self._sources, settings.sources)):
      if split == "train" and not len(source):
        raise SettingsError(f"data.source.sources[{number}], {own.name}, has no records to train on; leave it out")
    self._starts = np.cumsum([0, *map(len, self._sources)])
    self.tasks = tuple(task for source in self._sources for task in source.tasks)

  def __len__(self) -> int:
    return int(self._starts[-1])

  def catalogue(self) -> Catalogue:
    own = [source.catalogue() for source in self._sources]
    buckets = [np.zeros(len(c.tokens), np.uint8) if c.buckets is None else c.buckets for c in own]
    parts = []
    for catalogue, weight in zip(own, self._weights):
      inner = catalogue.parts or ((len(catalogue.tokens), 1.0),)
      parts += [(count, weight * share / sum(share for _, share in inner)) for count, share in inner]
    return Catalogue(
      np.concatenate([c.tokens for c in own]),
      np.concatenate([c.images for c in own]),
      np.concatenate(buckets) if any(c.buckets is not None for c in own) else None,
      tuple(parts),
    )

  def record(self, index: int, rng: np.random.Generator) -> list[Turn]:
    number, own = self._place(index)
    return self._sources[number].record(own, rng)

  def task(self, index: int) -> Task:
    number, own = self._place(index)
    return self._sources[number].task(own)

  def key(self, index: int) -> str:
    number, own = self._place(index)
    return f"sources[{number}]: {self._sources[number].key(own)}"

  def distinct(self) -> Iterable[int]:
    """One of each source in turn, as long as it has some, so that the first few are of all. UserError as the first
    source has it, if there is nothing."""
    if not len(self):
      return self._sources[0].distinct()
    own = [
      map(int(start).__add__, source.distinct()) for start, source in zip(self._starts, self._sources) if len(source)
    ]
    rounds = itertools.zip_longest(*own)
    return (index for dealt in rounds for index in dealt if index is not None)

  def _place(self, index: int) -> tuple[int, int]:
    """The number of the source that a record is of, and its index there."""
    number = int(np.searchsorted(self._starts, index, side="right")) - 1
    return number, int(index - self._starts[number])
