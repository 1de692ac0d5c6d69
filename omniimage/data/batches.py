"""Batches: packed rows of conversations, the contract between data and model.

A batch is a function of (seed, batch index, rows): no iterator state, the same whatever the number of hosts, whatever
was read before. Threads or processes read and decode ahead.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
from absl import logging

from omniimage.data import conversation
from omniimage.data.ahead import read_ahead
from omniimage.data.bad_records import BadRecords
from omniimage.data.batch_stream import BatchStream
from omniimage.data.capacity import why_too_large
from omniimage.data.conversation import Encoded, Tokenizer
from omniimage.data.readings import Readings
from omniimage.data.sources.source import Source
from omniimage.settings import DataSettings
from omniimage.size import Size
from omniimage.streams import Stream, generator
from omniimage.vocabulary import Vocabulary

# Axes: B rows, L tokens of a row, I image slots of a row, H and W pixels, h and w codes.

FIRST_RECORDS = 8  # one of them at least must be readable, or nothing starts
MOST_LISTED = 10_000  # of the records that are larger than a row


class Batch(TypedDict):
  """Packed rows. A segment is a conversation; padding is segment 0, with `pad` tokens at position 0 of weight 0.

  A coded batch holds the images' codes, made before, and no images.
  """

  tokens: np.ndarray  # (B,L) int32, placeholders where the codes go
  positions: np.ndarray  # (B,L,3) int32: time, row, column, from 0 in every segment
  segments: np.ndarray  # (B,L) int32: 1, 2, …
  loss_weights: np.ndarray  # (B,L) float32: weight of token i as what position i−1 should predict
  images: NotRequired[np.ndarray]  # (B,I,H,W,3) uint8, all of one size; the step maps them to [-1, 1]
  codes: NotRequired[np.ndarray]  # (B,I,h,w) int32, likewise
  image_mask: np.ndarray  # (B,I) bool: the slot holds an image; all else of an unused slot is zero
  image_start: np.ndarray  # (B,I) int32: index in the row of the image's first code
  image_is_target: np.ndarray  # (B,I) bool


Notes = list[tuple[int, str]]  # each record that was read, and what was wrong with it, or nothing


class Batches:
  """The batches of a source. SettingsError at once if too many of its records do not fit a row.

  Attributes:
    bad_records: indices of the records that could not be read, so far.
  """

  def __init__(
    self,
    source: Source,
    data: DataSettings,
    vocabulary: Vocabulary,
    text_tokenizer: Tokenizer,
    sizes: Sequence[Size],
    seed: int,
    coded: bool = False,
  ):
    """
    Args:
      sizes: that the source was opened for.
      coded: the images of its turns are codes, and so are those of the batches.
    """
    catalogue = source.catalogue()
    if not len(catalogue.tokens):
      raise ValueError("the data source has no records; a source needs at least one")
    self._data = data
    self._stream = BatchStream(catalogue, len(sizes), data, seed)
    bounds = catalogue.tokens, catalogue.images
    self._reader = Reader(source, data, vocabulary, text_tokenizer, tuple(sizes), seed, self._stream, *bounds, coded)
    self.bad_records: set[int] = set()
    self._readings, self._listed = Readings(), None
    self._reader.check()

  def size_of(self, batch_index: int) -> Size:
    """The size of all images of a batch, by its index alone: every process takes part in the same compiled step."""
    return self._reader.sizes[self._stream.bucket(batch_index)]

  def batch(self, batch_index: int, rows: int, own: Sequence[int] | None = None) -> Batch:
    """Batch `batch_index`, which has `rows` rows over all processes: those of a process, or all."""
    _, batch, notes = self._reader.read(batch_index, rows, own)
    self._note(notes)
    return batch

  def iterate(
    self,
    start_index: int,
    stop_index: int,
    rows: int,
    own: Sequence[int] | None = None,
    *,
    num_threads: int = 2,
    prefetch: int = 4,
  ) -> Iterator[tuple[int, Batch]]:
    """(batch index, `batch`) from `start_index` up to `stop_index`, read ahead by `data.workers` processes, or by
    `num_threads` threads where there are none. Closing the iterator ends them."""
    read = ReadOf(self._reader, rows, own)
    ahead = read_ahead(read, start_index, stop_index, workers=self._data.workers, threads=num_threads, ahead=prefetch)
    with contextlib.closing(ahead):
      for batch_index, batch, notes in ahead:
        self._note(notes)
        yield batch_index, batch

  def record_ids(self, batch_index: int, rows: int) -> list[list[int]]:
    """The records in each row of the whole batch, in order, the bad ones included."""
    return [[record for _, record in self._stream.row(batch_index, rows, place)] for place in range(rows)]

  def statistics(self, batch_index: int, rows: int) -> dict[str, float]:
    """Shares for the log: of the tokens taken in the batch's block, by the records' bounds; of its records dropped; and
    of the last records read, whatever their batch, that were bad."""
    block = self._stream.block(batch_index, rows)
    shares = {"packing_fill": block.fill, "packing_dropped": block.dropped}
    return {**shares, "bad_records": self._readings.bad_share}

  def check(self):
    """Raises UserError where more of the last records than `data.max_bad_records` could not be read."""
    self._readings.check(self._data.max_bad_records)

  def keep_list(self, path: Path, first: bool = True):
    """From now on bad records are listed in a file; by the `first` process, those that are larger than a row at
    once."""
    self._listed = BadRecords(path)
    left_out, tokens, images = self._stream.too_large, self._reader.tokens, self._reader.images
    if first and len(left_out):
      for record in left_out[:MOST_LISTED].tolist():
        self._list(record, f"larger than a row: {why_too_large(tokens[record], images[record], self._data)}")
      logging.warning("%d of %d records are left out, larger than a row: %s", len(left_out), len(tokens), path.name)

  def _note(self, notes: Notes):
    for record, problem in notes:
      self._readings.note(problem and f"record {record}: {problem}")
      if problem and record not in self.bad_records:
        self.bad_records.add(record)
        logging.warning("left out, record %d: %s", record, problem)
        self._list(record, problem)

  def _list(self, record: int, problem: str):
    if self._listed is not None:
      self._listed.add(self._reader.source.key(record), record, problem)


@dataclass(frozen=True, eq=False)
class Reader:
  """Makes batches. It holds nothing that changes, so that threads share it and processes have one each."""

  source: Source
  data: DataSettings
  vocabulary: Vocabulary
  text_tokenizer: Tokenizer
  sizes: tuple[Size, ...]
  seed: int
  stream: BatchStream
  tokens: np.ndarray  # (n,) of each record at most
  images: np.ndarray  # (n,) likewise
  coded: bool

  def read(self, batch_index: int, rows: int, own: Sequence[int] | None = None) -> tuple[int, Batch, Notes]:
    """The rows `own` of a batch of `rows`, or all of them. A record that cannot be read is an empty segment, and
    noted."""
    own, notes = range(rows) if own is None else own, []
    size = self.sizes[self.stream.bucket(batch_index)]
    batch = empty_batch(len(own), self.data, self.vocabulary, size, self.coded)
    for row, place in enumerate(own):
      start = slot = 0
      for segment, (epoch, record) in enumerate(self.stream.row(batch_index, rows, int(place)), start=1):
        try:
          encoded = self.encode(epoch, record, size)
        except Exception as error:  # one broken file among millions must not end a run
          notes.append((record, f"{type(error).__name__}: {error}"))
          continue
        notes.append((record, ""))
        _write(batch, encoded, row, segment, start, slot)
        start += len(encoded.tokens)
        slot += len(encoded.images)
    return batch_index, batch, notes

  def encode(self, epoch: int, record: int, size: Size) -> Encoded:
    """One conversation as it is in this epoch. ValueError if it is larger than the source had promised."""
    rng = generator(Stream.RECORDS, self.seed, epoch, record)
    without_text = rng.random() < self.data.drop_text
    turns = self.source.record(record, rng)
    if without_text:
      turns = self.source.task(record).without_condition(turns)
    encoded = conversation.encode(turns, self.text_tokenizer, self.vocabulary, size)
    shape, what = ((size.rows, size.columns), "codes") if self.coded else ((*size.pixels, 3), "an image")
    for image in encoded.images:
      if image.shape != shape:
        raise ValueError(f"record {record} has {what} of {image.shape}, its bucket is of {shape}")
    for name, found, bound in (
      ("tokens", len(encoded.tokens), self.tokens[record]),
      ("images", len(encoded.images), self.images[record]),
    ):
      if found > bound:
        raise ValueError(f"record {record} has {found} {name}, but its source's catalogue promised at most {bound}")
    return encoded

  def check(self):
    """Raises the error of the first records if none of them can be read: then it is not the records."""
    left_out = self.stream.too_large
    first = np.setdiff1d(np.arange(min(len(self.tokens), FIRST_RECORDS + len(left_out))), left_out)[:FIRST_RECORDS]
    for record in first.tolist():
      try:
        return self.encode(0, record, self.sizes[self.stream.bucket_of(record)])
      except Exception as raised:
        error = raised
    raise error


@dataclass(frozen=True, eq=False)
class ReadOf:
  """What workers are asked: a batch by its index."""

  reader: Reader
  rows: int
  own: Sequence[int] | None

  def __call__(self, batch_index: int) -> tuple[int, Batch, Notes]:
    return self.reader.read(int(batch_index), self.rows, self.own)


def empty_batch(rows: int, data: DataSettings, vocabulary: Vocabulary, size: Size, coded: bool = False) -> Batch:
  """A batch of padding, of a bucket: every field, its shape and type."""
  B, L, I = rows, data.sequence_length, data.images_per_row
  if coded:
    shown = {"codes": np.zeros((B, I, size.rows, size.columns), np.int32)}
  else:
    shown = {"images": np.zeros((B, I, *size.pixels, 3), np.uint8)}
  return Batch(
    **shown,
    tokens=np.full((B, L), vocabulary.pad, np.int32),
    positions=np.zeros((B, L, 3), np.int32),
    segments=np.zeros((B, L), np.int32),
    loss_weights=np.zeros((B, L), np.float32),
    image_mask=np.zeros((B, I), bool),
    image_start=np.zeros((B, I), np.int32),
    image_is_target=np.zeros((B, I), bool),
  )


def _write(batch: Batch, encoded: Encoded, row: int, segment: int, start: int, slot: int):
  """Writes a conversation into a row, from token `start` and image slot `slot` on."""
  tokens = row, slice(start, start + len(encoded.tokens))
  batch["tokens"][tokens] = encoded.tokens
  batch["positions"][tokens] = encoded.positions
  batch["segments"][tokens] = segment
  batch["loss_weights"][tokens] = encoded.loss_weights
  images = row, slice(slot, slot + len(encoded.images))
  shown = batch["codes" if "codes" in batch else "images"]
  for offset, image in enumerate(encoded.images):
    shown[row, slot + offset] = image
  batch["image_mask"][images] = True
  batch["image_start"][images] = encoded.image_starts + start
  batch["image_is_target"][images] = encoded.image_is_target
