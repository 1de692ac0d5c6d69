"""Dealing the places of an endless stream among a few labels: which label a place has, and how many of its kind came
before, from the place alone.

Every BLOCK places hold each label as often as the last, in its share, in an order that is shuffled anew. So what a
label has got by any place is the count of whole blocks and of the beginning of one: nothing is replayed.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from omniimage.streams import Stream, generator

BLOCK = 1024  # places; a share is a multiple of 1/1024


@dataclass(frozen=True)
class Deal:
  """A deal of the places 0, 1, 2, …

  Attributes:
    counts: of each label in every BLOCK places.
    stream, seed, index: name the draw.
  """

  counts: tuple[int, ...]
  stream: Stream
  seed: int
  index: tuple[int, ...] = ()

  def between(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """The labels of the places start … stop−1, and the number of each among those of its label, from 0 on."""
    if BLOCK in self.counts:
      return np.full(stop - start, self.counts.index(BLOCK)), np.arange(start, stop)
    blocks, places = np.divmod(np.arange(start, stop), BLOCK)
    labels, numbers = np.empty_like(places), np.empty_like(places)
    for block in range(start // BLOCK, -(-stop // BLOCK)):
      own, (dealt, before) = blocks == block, _dealt(self, block)
      labels[own], numbers[own] = dealt[places[own]], before[places[own]]
    return labels, numbers + blocks * np.asarray(self.counts)[labels]

  def at(self, place: int) -> tuple[int, int]:
    """Label and number of one place."""
    labels, numbers = self.between(place, place + 1)
    return int(labels[0]), int(numbers[0])


@functools.lru_cache(maxsize=64)
def _dealt(deal: Deal, block: int) -> tuple[np.ndarray, np.ndarray]:
  """The labels of a block's places, (BLOCK,), and how many of each one's label stand before it in the block."""
  labels = np.repeat(np.arange(len(deal.counts)), deal.counts)
  labels = generator(deal.stream, deal.seed, block, *deal.index).permutation(labels)
  before = np.empty(BLOCK, np.int64)
  for label, count in enumerate(deal.counts):
    before[labels == label] = np.arange(count)
  return labels, before


def counts(shares: Sequence[float], total: int = BLOCK) -> tuple[int, ...]:
  """Whole numbers in proportion to the shares, `total` together, by largest remainder; at least 1 where there is a
  share. ValueError where no share is above zero, or more are than `total`."""
  shares = np.asarray(shares, np.float64)
  there = shares > 0
  if not 0 < there.sum() <= total:
    raise ValueError(f"{there.sum()} of the shares {shares.tolist()} are above zero; expected 1 to {total}")
  exact = shares / shares.sum() * total
  whole = np.maximum(np.floor(exact).astype(np.int64), there)
  missing = total - whole.sum()
  if missing > 0:
    whole[np.argsort(whole - exact, kind="stable")[:missing]] += 1
  for _ in range(-missing):  # those that were raised to 1 take from those that have most above their share
    whole[np.argmax(np.where(whole > 1, whole - exact, -np.inf))] -= 1
  return tuple(whole.tolist())
