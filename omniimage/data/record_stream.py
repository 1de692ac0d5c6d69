"""The endless stream of records that rows are packed from: which record is at a place, from the place alone.

The parts of a mixture are dealt out by their weights, and each goes through its own records epoch by epoch, in another
order each time. There is no other state than the seed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from omniimage.data.dealing import Deal, counts
from omniimage.data.shuffle import permuted
from omniimage.streams import Stream

AT_A_TIME = 2**20  # records that are looked at at a time, so that none of many needs memory


@dataclass(frozen=True, eq=False)
class Chosen:
  """Some of a data set's records: `count` from `first` on, or those that are listed."""

  first: int
  count: int
  listed: np.ndarray | None = None

  def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
    return self.first + numbers if self.listed is None else self.listed[numbers]


@dataclass(frozen=True)
class RecordStream:
  """
  Attributes:
    parts: records of each part of a mixture; none is empty.
    weights: how often a record of each is drawn.
    bucket: the number of the stream among those of the run.
  """

  parts: tuple[Chosen, ...]
  weights: tuple[float, ...]
  seed: int
  bucket: int = 0

  @property
  def count(self) -> int:
    """Records of all parts."""
    return sum(part.count for part in self.parts)

  def between(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """The epochs, each part's own, and the records at the places start … stop−1, (k,) int64 each."""
    deal = Deal(counts(self.weights), Stream.PARTS, self.seed, (self.bucket,))
    labels, numbers = deal.between(start, stop)
    epochs, records = np.empty_like(numbers), np.empty_like(numbers)
    for label, part in enumerate(self.parts):
      own = np.flatnonzero(labels == label)
      epochs[own], places = np.divmod(numbers[own], part.count)
      for epoch in np.unique(epochs[own]):
        now = epochs[own] == epoch
        order = permuted(places[now], part.count, self.seed, int(epoch), self.bucket, label)
        records[own[now]] = part[order]
    return epochs, records


def choose(wanted: Callable[[slice], np.ndarray] | None, first: int, count: int) -> Chosen:
  """Of `count` records from `first` on those that are wanted, by a mask of a slice of them; None: all."""
  if wanted is None:
    return Chosen(first, count)
  stop, kind = first + count, np.int32 if first + count < 2**31 else np.int64
  found = [
    (start + np.flatnonzero(wanted(slice(start, min(start + AT_A_TIME, stop))))).astype(kind)
    for start in range(first, stop, AT_A_TIME)
  ]
  listed = np.concatenate([np.empty(0, kind), *found])
  return Chosen(first, len(listed), None if len(listed) == count else listed)


def weighed(parts: Sequence[tuple[int, float]]) -> list[tuple[int, int, float]]:
  """(first record, count, weight a record) of each part that has records and a weight."""
  starts = np.cumsum([0, *(count for count, _ in parts)]).tolist()
  return [(start, count, weight / count) for start, (count, weight) in zip(starts, parts) if count and weight]
