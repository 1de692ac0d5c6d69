"""Batches: packed rows of conversations, the contract between data and model.

A batch is a function of (seed, batch index, rows): no iterator state, the same whatever the number of hosts, whatever
was read before. Grain reads and decodes ahead in threads.
"""

from collections.abc import Iterator, Sequence
from typing import NotRequired, TypedDict

import grain
import numpy as np
from absl import logging

from omniimage.data import conversation
from omniimage.data.conversation import Encoded, Tokenizer
from omniimage.data.packing import RowStream
from omniimage.data.readings import Readings
from omniimage.data.sources.source import Source
from omniimage.settings import DataSettings, SettingsError
from omniimage.size import Size
from omniimage.streams import Stream, generator
from omniimage.vocabulary import Vocabulary

# Axes: B rows, L tokens of a row, I image slots of a row, H and W pixels, h and w codes.

FIRST_RECORDS = 8  # one of them at least must be readable, or nothing starts


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


class Batches:
  """The batches of a source, coded if the images of its records are codes. SettingsError at once if a record may not
  fit a row."""

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
    """`sizes`: that the source was opened for."""
    self._source, self._data, self._seed, self._coded = source, data, seed, coded
    self._vocabulary, self._text_tokenizer, self._sizes = vocabulary, text_tokenizer, tuple(sizes)
    catalogue = source.catalogue()
    self._tokens, self._images = catalogue.tokens, catalogue.images
    if not len(self._tokens):
      raise ValueError("the data source has no records; a source needs at least one")
    self.bad_records: set[int] = set()  # that could not be read, so far
    self._readings = Readings()
    self._check_capacity()
    self._check_readable()
    self._stream = RowStream(
      self._tokens,
      self._images,
      rows=data.packing_rows,
      sequence_length=data.sequence_length,
      images_per_row=data.images_per_row,
      seed=seed,
    )

  def size_of(self, batch_index: int) -> Size:
    """The size of all images of a batch, by its index alone: every process takes part in the same compiled step. As yet
    there is one bucket."""
    return self._sizes[0]

  def batch(self, batch_index: int, rows: int, own: Sequence[int] | None = None) -> Batch:
    """Batch `batch_index`, which has `rows` rows over all processes: those of a process, or all."""
    own = range(rows) if own is None else own
    size = self.size_of(batch_index)
    batch = empty_batch(len(own), self._data, self._vocabulary, size, self._coded)
    for row, place in enumerate(own):
      start = slot = 0
      for segment, (epoch, record) in enumerate(self._stream.row(batch_index * rows + int(place)), start=1):
        encoded = self._read_or_skip(epoch, record, size)
        if encoded is not None:
          _write(batch, encoded, row, segment, start, slot)
          start += len(encoded.tokens)
          slot += len(encoded.images)
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
    """(batch index, `batch`) from `start_index` up to `stop_index`, read ahead by `num_threads` threads."""

    def read(batch_index: int) -> tuple[int, Batch]:
      return batch_index, self.batch(batch_index, rows, own)

    ahead = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=prefetch)
    return iter(grain.MapDataset.range(start_index, stop_index).map(read).to_iter_dataset(ahead))

  def record_ids(self, batch_index: int, rows: int) -> list[list[int]]:
    """The records in each row of the whole batch, in order, the bad ones included."""
    first = batch_index * rows
    return [[record for _, record in self._stream.row(place)] for place in range(first, first + rows)]

  def statistics(self, batch_index: int, rows: int) -> dict[str, float]:
    """Shares for the log: of the tokens taken in the batch's block, by the records' bounds; of its records dropped; and
    of the last records read, whatever their batch, that were bad."""
    block = self._stream.block(batch_index * rows // self._data.packing_rows)
    shares = {"packing_fill": block.fill, "packing_dropped": block.dropped}
    return {**shares, "bad_records": self._readings.bad_share}

  def check(self):
    """Raises UserError where more of the last records than `data.max_bad_records` could not be read."""
    self._readings.check(self._data.max_bad_records)

  def _read(self, epoch: int, record: int, size: Size) -> Encoded:
    """One conversation as it is in this epoch. ValueError if it is larger than the source had promised."""
    rng = generator(Stream.RECORDS, self._seed, epoch, record)
    without_text = rng.random() < self._data.drop_text
    turns = self._source.record(record, rng)
    if without_text:
      turns = self._source.task(record).without_condition(turns)
    encoded = conversation.encode(turns, self._text_tokenizer, self._vocabulary, size)
    shape, what = ((size.rows, size.columns), "codes") if self._coded else ((*size.pixels, 3), "an image")
    for image in encoded.images:
      if image.shape != shape:
        raise ValueError(f"record {record} has {what} of {image.shape}, data.image_size asks for {shape}")
    for name, found, bound in (
      ("tokens", len(encoded.tokens), self._tokens[record]),
      ("images", len(encoded.images), self._images[record]),
    ):
      if found > bound:
        raise ValueError(f"record {record} has {found} {name}, but its source's catalogue promised at most {bound}")
    return encoded

  def _read_or_skip(self, epoch: int, record: int, size: Size) -> Encoded | None:
    try:
      encoded = self._read(epoch, record, size)
    except Exception as error:  # one broken file among millions must not end a run
      problem = f"record {record}: {type(error).__name__}: {error}"
      self._readings.note(problem)
      if record not in self.bad_records:
        self.bad_records.add(record)
        logging.warning("left out, %s", problem)
      return None
    self._readings.note()
    return encoded

  def _check_capacity(self):
    for name, key, needs in (
      ("tokens", "sequence_length", self._tokens),
      ("images", "images_per_row", self._images),
    ):
      holds, largest = getattr(self._data, key), int(np.argmax(needs))
      if needs[largest] > holds:
        raise SettingsError(
          f"data.{key}={holds} is too small: record {largest} may have {needs[largest]} {name}; "
          f"set data.{key} to {needs[largest]} or more"
        )

  def _check_readable(self):
    """Raises the error of the first records if none of them can be read: then it is not the records."""
    for record in range(min(FIRST_RECORDS, len(self._source))):
      try:
        return self._read(0, record, self.size_of(0))
      except Exception as raised:
        error = raised
    raise error


def empty_batch(rows: int, data: DataSettings, vocabulary: Vocabulary, size: Size, coded: bool = False) -> Batch:
  """A batch of padding, of a bucket: every field, its shape and type."""
  B, L, I = rows, data.sequence_length, data.images_per_row
  codes, images = np.zeros((B, I, size.rows, size.columns), np.int32), np.zeros((B, I, *size.pixels, 3), np.uint8)
  return Batch(
    **({"codes": codes} if coded else {"images": images}),
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
