"""Packing: which records share a row, as a pure function of (seed, index).

Every epoch permutes the records, and the epochs follow each other as one endless stream. W consecutive records of it, a
block, are packed into exactly R rows of so many tokens and so many image slots; what finds no place is dropped and
counted. The blocks follow each other as one endless stream of rows: row r is row r % R of block r // R. So any row, of
any step, on any host, is found without reading the rows before it.
"""

import functools
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from omniimage.streams import Stream, generator

# Axes: N records of the data set, W records of a block, R rows of a block.

MAX_DROPPED = 0.01  # share of a block's records that may find no place; fewer leave the rows emptier
TRIAL_ROWS = 2048  # that are packed to find how many records a block takes


@dataclass(frozen=True)
class Packed:
  rows: tuple[tuple[int, ...], ...]  # for each row the positions in the block of its records, in order
  dropped: int  # records that found no place
  fill: float  # share of the rows' tokens that is taken


def pack_block(tokens, images, rows: int, sequence_length: int, images_per_row: int) -> Packed:
  """Packs the records of a block, of `tokens` (W,) and `images` (W,), best-fit in the order of the stream.

  A record goes where it leaves the least room for tokens, then for images. The order is the stream's and not
  decreasing, so that what is dropped is not always the shortest. Rows of equal room are interchangeable: they wait in
  one stack for each room, and a bit for each stack that is not empty finds the tightest one in a few operations.
  """
  waiting = defaultdict(list)  # (free images, free tokens) -> rows
  waiting[images_per_row, sequence_length] = list(range(rows))[::-1]
  stacks = [0] * images_per_row + [1 << sequence_length]  # of each number of free images: bit n set for n free tokens
  packed, dropped, taken = [[] for _ in range(rows)], 0, 0
  for position, (need, slots) in enumerate(zip(np.asarray(tokens).tolist(), np.asarray(images).tolist())):
    least, found = sequence_length + 1, None
    for free_images in range(slots, images_per_row + 1):
      if fitting := stacks[free_images] >> need:
        room = (fitting & -fitting).bit_length() - 1  # what the tightest row that fits will have left
        if room < least:
          least, found = room, (free_images, need + room)
    if found is None:
      dropped += 1
      continue
    free_images, free_tokens = found
    row = waiting[found].pop()
    if not waiting[found]:
      stacks[free_images] &= ~(1 << free_tokens)
    waiting[free_images - slots, free_tokens - need].append(row)
    stacks[free_images - slots] |= 1 << free_tokens - need
    packed[row].append(position)
    taken += need
  return Packed(tuple(map(tuple, packed)), dropped, taken / (rows * sequence_length))


def block_records(tokens, images, rows: int, sequence_length: int, images_per_row: int) -> int:
  """W, the records of a block: as many as R mean records' rows hold, less until trials drop no more than 1 % of them.

  Args:
    tokens, images: of every record, in the order of the stream: its first blocks are the trials.
  """
  tokens, images = np.asarray(tokens), np.asarray(images)
  records = rows * min(sequence_length / tokens.mean(), images_per_row / max(images.mean(), 1e-9))
  records, trials = max(1, int(records)), max(1, TRIAL_ROWS // rows)
  while True:
    blocks = np.arange(trials * records).reshape(trials, records) % len(tokens)
    dropped = sum(pack_block(tokens[b], images[b], rows, sequence_length, images_per_row).dropped for b in blocks)
    if dropped <= MAX_DROPPED * blocks.size or records == 1:
      return records
    records -= -(-dropped // (2 * trials))  # half of what is too much, rounded up: the rest often finds a place then


@functools.lru_cache(maxsize=8)
def _permutation(num_records: int, seed: int, epoch: int) -> np.ndarray:
  return generator(Stream.ORDER, seed, epoch).permutation(num_records)


def records_between(start: int, stop: int, num_records: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """The epochs and the records at the places start … stop−1 of the endless permuted stream."""
  epochs, places = np.divmod(np.arange(start, stop), num_records)
  records = np.empty_like(places)
  for epoch in np.unique(epochs):
    records[epochs == epoch] = _permutation(num_records, seed, int(epoch))[places[epochs == epoch]]
  return epochs, records


def record_at(stream_position: int, num_records: int, seed: int) -> tuple[int, int]:
  """(epoch, record) at one place of the endless permuted stream."""
  epoch, place = divmod(stream_position, num_records)
  return epoch, int(_permutation(num_records, seed, epoch)[place])


@dataclass(frozen=True)
class Block:
  rows: tuple[tuple[tuple[int, int], ...], ...]  # (epoch, record) of every record of every row
  dropped: float  # share of the block's records
  fill: float  # share of the rows' tokens, by the records' upper bounds


class RowStream:
  """The endless stream of packed rows over a data set of known lengths. Threads may share it."""

  def __init__(self, tokens, images, *, rows: int, sequence_length: int, images_per_row: int, seed: int):
    self._tokens, self._images = np.asarray(tokens), np.asarray(images)
    self._capacity = (rows, sequence_length, images_per_row)
    self._rows, self._seed = rows, seed
    _, first_epoch = records_between(0, len(self._tokens), len(self._tokens), seed)
    self.block_records = block_records(self._tokens[first_epoch], self._images[first_epoch], *self._capacity)
    self.block = functools.lru_cache(maxsize=4)(self._pack)

  def row(self, index: int) -> tuple[tuple[int, int], ...]:
    """(epoch, record) of every record in row `index` of the stream."""
    block, row = divmod(index, self._rows)
    return self.block(block).rows[row]

  def _pack(self, index: int) -> Block:
    start = index * self.block_records
    epochs, records = records_between(start, start + self.block_records, len(self._tokens), self._seed)
    packed = pack_block(self._tokens[records], self._images[records], *self._capacity)
    names = list(zip(epochs.tolist(), records.tolist()))
    # The last rows of a block are what was left to fill: shuffled, no batch gets all of them.
    order = generator(Stream.BLOCK_ROWS, self._seed, index).permutation(self._rows)
    rows = tuple(tuple(names[position] for position in packed.rows[row]) for row in order)
    return Block(rows, packed.dropped / self.block_records, packed.fill)
