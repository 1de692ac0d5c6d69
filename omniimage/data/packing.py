"""Packing: which records share a row, as a pure function of (seed, index).

The records come as an endless stream. W consecutive ones, a block, are packed into exactly R rows of so many tokens and
so many image slots, the largest first, each where it leaves the least room (best-fit decreasing; Johnson 1973). What
finds no place waits for the next blocks, where it comes after their own records and after what has waited less; what
has found none in WAITS of them is dropped and counted. So how a block's own records are packed depends on them alone,
where those that wait go on nothing before the last WAITS blocks, and the rows on no more. The blocks follow each other
as one endless stream of rows: row r is row r % R of block r // R. Any row, of any step, on any host, is found without
those before it, but for the few blocks that are packed again to know what they leave over.
"""

import functools
import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from omniimage.data.record_stream import RecordStream
from omniimage.streams import Stream, generator

# Axes: W records of a block, R rows of a block.

WAITS = 4  # blocks after its own in which a record may find a place
USUAL_RECORDS = (2**12, 2**16)  # at least and at most, from the begin of the stream: they stand for all
MAX_LEFT = 0.001  # share of a block of the usual mix that may find no place in it
DEVIATIONS = 1.0  # of what a block's records need, that are kept free; fewer drop more, more leave the rows emptier
TRIAL_ROWS, TRIAL_BLOCKS = 1024, 12  # at least, from the begin of the stream, that are packed to see what is dropped
MAX_DROPPED = 0.0005  # share of their records
FEWER = 256  # th part of a block's records, by which it has fewer where more are dropped


@dataclass(frozen=True)
class Packed:
  """
  Attributes:
    rows: for each row the positions in the block of its records, in order; of those that waited, W and on.
    left: positions of the records that found no place.
    fill: share of the rows' tokens that is taken.
  """

  rows: tuple[tuple[int, ...], ...]
  left: tuple[int, ...]
  fill: float


class Rows:
  """Rows that fill up. Those of equal room are interchangeable: they wait in one stack for each room, and a bit for
  each stack that is not empty finds the tightest in a few operations."""

  def __init__(self, rows: int, sequence_length: int, images_per_row: int):
    self._tokens, self._images, self.taken = sequence_length, images_per_row, 0
    self._waiting = {images_per_row * (sequence_length + 1) + sequence_length: list(range(rows))[::-1]}
    self._stacks = [0] * images_per_row + [1 << sequence_length]  # of each number of free images: bit n, n free tokens
    self.rows = [[] for _ in range(rows)]

  def place(self, records: Iterable[tuple[int, int, int]]) -> list[int]:
    """Puts each record (position, tokens, images), in order, where it leaves the least room for tokens, then for
    images. Returns the positions of those that fit nowhere."""
    stacks, waiting, rows, pitch, left = self._stacks, self._waiting, self.rows, self._tokens + 1, []
    for position, need, slots in records:
      least, found = pitch, -1
      for free_images in range(slots, self._images + 1):
        if fitting := stacks[free_images] >> need:
          room = (fitting & -fitting).bit_length() - 1  # what the tightest row that fits will have left
          if room < least:
            least, found = room, free_images
      if found < 0:
        left.append(position)
        continue
      key = found * pitch + need + least
      row = waiting[key].pop()
      if not waiting[key]:
        stacks[found] &= ~(1 << need + least)
      waiting.setdefault((found - slots) * pitch + least, []).append(row)
      stacks[found - slots] |= 1 << least
      rows[row].append(position)
      self.taken += need
    return left


def pack_block(
  tokens, images, rows: int, sequence_length: int, images_per_row: int, waiting: Sequence[tuple[int, int]] = ()
) -> Packed:
  """Packs the records of a block, of `tokens` (W,) and `images` (W,), then those `waiting`, of (tokens, images)."""
  tokens, images = np.asarray(tokens), np.asarray(images)
  size = np.maximum(tokens / sequence_length, images / max(images_per_row, 1))
  order = np.argsort(-size, kind="stable")
  packed = Rows(rows, sequence_length, images_per_row)
  left = packed.place(zip(order.tolist(), tokens[order].tolist(), images[order].tolist()))
  left += packed.place((len(tokens) + i, *record) for i, record in enumerate(waiting))
  fill = packed.taken / (rows * sequence_length)
  return Packed(tuple(tuple(sorted(row)) for row in packed.rows), tuple(left), fill)


def usual_records(tokens, images, rows: int, sequence_length: int, images_per_row: int) -> int:
  """How many records a block may have: as many of the usual mix as its rows can hold, less a deviation, so that a block
  with more large records than usual seldom overflows by more than the next ones have room for.

  Args:
    tokens, images: of records that stand for all.
  """
  tokens, images = np.asarray(tokens), np.asarray(images)
  order, capacity = np.lexsort((tokens, images)), (rows, sequence_length, images_per_row)
  needs = (tokens, rows * sequence_length), (images, rows * images_per_row)
  records = int(min(room / need.mean() for need, room in needs if need.any()))
  while records > 1:
    usual = order[((np.arange(records) + 0.5) * (len(order) / records)).astype(int)]  # of every size its share
    left = len(pack_block(tokens[usual], images[usual], *capacity).left)
    if left <= MAX_LEFT * records:
      break
    records -= max(1, left // 2)  # the other half often finds a place then
  deviation = max(need.std() / need.mean() for need, _ in needs if need.any())
  return max(1, int(records - DEVIATIONS * deviation * math.sqrt(records)))


@dataclass(frozen=True, eq=False)
class Block:
  """
  Attributes:
    names: (k, 2) epochs and records, of which the rows have some.
    rows: of each row, which of them, in order.
    dropped: share of a block's records that found no place.
    fill: share of the rows' tokens that is taken, by the records' upper bounds.
  """

  names: np.ndarray
  rows: tuple[tuple[int, ...], ...]
  dropped: float
  fill: float

  def row(self, index: int) -> list[tuple[int, int]]:
    """(epoch, record) of every record of a row."""
    return [(epoch, record) for epoch, record in self.names[list(self.rows[index])].tolist()]


class RowStream:
  """The endless stream of packed rows of some records. Threads may share it."""

  def __init__(
    self,
    tokens: np.ndarray,
    images: np.ndarray,
    records: RecordStream,
    *,
    rows: int,
    sequence_length: int,
    images_per_row: int,
    seed: int,
    bucket: int = 0,
  ):
    """`tokens` and `images` of all the data set's records, of which the stream has some, or all; `bucket` is the number
    of the stream among those of the run."""
    self._tokens, self._images, self._records = tokens, images, records
    self._capacity, self._draw = (rows, sequence_length, images_per_row), (seed, bucket)
    _, first = records.between(0, int(np.clip(records.count, *USUAL_RECORDS)))
    self.block_records = usual_records(tokens[first], images[first], *self._capacity)
    self._remember()
    while self.block_records > 1 and self._drops():
      self.block_records -= max(1, self.block_records // FEWER)
      self._remember()

  def row(self, index: int) -> list[tuple[int, int]]:
    """(epoch, record) of every record in row `index` of the stream."""
    block, row = divmod(index, self._capacity[0])
    return self.block(block).row(row)

  def block(self, index: int) -> Block:
    with self._packing:  # of threads that want one block, one packs it
      return self._blocks(index)

  def _drops(self) -> bool:
    """Whether the first blocks drop more than may be."""
    blocks, dropped = max(TRIAL_BLOCKS, TRIAL_ROWS // self._capacity[0]), 0.0
    for index in range(blocks):
      dropped += self.block(index).dropped
      if dropped > MAX_DROPPED * blocks:
        return True
    return False

  def _remember(self):
    self._packing = threading.Lock()
    self._blocks = functools.lru_cache(maxsize=4)(self._pack)
    self._left = {}  # of the block packed last: what it leaves over

  def __getstate__(self):
    return {name: value for name, value in vars(self).items() if name not in ("_packing", "_blocks", "_left")}

  def __setstate__(self, state):
    vars(self).update(state)
    self._remember()

  def _pack(self, index: int) -> Block:
    names, packed, left = self._packed(index, self._waiting(index, WAITS))
    self._left = {index: left[:WAITS]}
    # The last rows of a block are what was left to fill: shuffled, no batch gets all of them.
    seed, bucket = self._draw
    order = generator(Stream.BLOCK_ROWS, seed, index, bucket).permutation(len(packed.rows))
    rows = tuple(packed.rows[row] for row in order)
    return Block(names, rows, sum(map(len, left[WAITS:])) / self.block_records, packed.fill)

  def _packed(self, index: int, waiting: Sequence[np.ndarray]) -> tuple[np.ndarray, Packed, list[np.ndarray]]:
    """The names of a block's records, its own and then those that wait; how they are packed; and which are left over:
    of its own, of those that had waited for one block, for two, …"""
    start = index * self.block_records
    groups = [np.stack(self._records.between(start, start + self.block_records), axis=1), *waiting]
    names = np.concatenate(groups)
    tokens, images = (needs[names[:, 1]] for needs in (self._tokens, self._images))
    own, held = slice(None, self.block_records), slice(self.block_records, None)
    sizes = list(zip(tokens[held].tolist(), images[held].tolist()))
    packed = pack_block(tokens[own], images[own], *self._capacity, sizes)
    left, ends = np.sort(packed.left).astype(int), np.cumsum([len(group) for group in groups])
    return names, packed, [names[some] for some in np.split(left, np.searchsorted(left, ends[:-1]))]

  def _waiting(self, index: int, waits: int) -> list[np.ndarray]:
    """What the blocks before leave over: of the last one's own, of that before it, … of at most `waits`."""
    if index == 0 or waits == 0:
      return []
    if index - 1 not in self._left:
      return self._packed(index - 1, self._waiting(index - 1, waits - 1))[2][:waits]
    return self._left[index - 1][:waits]
