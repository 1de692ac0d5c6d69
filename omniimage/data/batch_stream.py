"""Which records share which row of which batch, and which size a batch has: all of it from the batch's index.

Every bucket, a size that images may have, has an endless stream of packed rows of its own. Batches are dealt among the
buckets in the shares of the rows that their records need, and the rows of a batch are the next of its bucket.
"""

from collections.abc import Callable

import numpy as np

from omniimage.data.capacity import too_large
from omniimage.data.dealing import Deal, counts
from omniimage.data.packing import Block, RowStream
from omniimage.data.record_stream import RecordStream, choose, weighed
from omniimage.data.sources.source import Catalogue
from omniimage.settings import DataSettings
from omniimage.streams import Stream


class BatchStream:
  """The rows of batches over a data set. SettingsError at once if too many of its records do not fit a row.

  Attributes:
    too_large: indices of the records that are left out since a row cannot hold them.
  """

  def __init__(self, catalogue: Catalogue, buckets: int, data: DataSettings, seed: int):
    """`buckets`: how many sizes the run has."""
    self._catalogue, self._data, self._seed = catalogue, data, seed
    if catalogue.buckets is not None and not 0 <= catalogue.buckets.min() <= catalogue.buckets.max() < buckets:
      raise ValueError(f"the data source has records of bucket {catalogue.buckets.max()}, and the run has {buckets}")
    self.too_large = too_large(catalogue.tokens, catalogue.images, data)
    streams = [self._open(bucket) for bucket in range(buckets if catalogue.buckets is not None else 1)]
    self._streams = [stream for stream, _ in streams]
    self._deal = Deal(counts([rows for _, rows in streams]), Stream.BUCKETS, seed)

  def bucket(self, batch_index: int) -> int:
    """The number of the size of a batch."""
    return self._deal.at(batch_index)[0]

  def bucket_of(self, record: int) -> int:
    """The number of the size of a record's images."""
    return 0 if self._catalogue.buckets is None else int(self._catalogue.buckets[record])

  def row(self, batch_index: int, rows: int, place: int) -> list[tuple[int, int]]:
    """(epoch, record) of every record of row `place` of a batch that has `rows`."""
    bucket, number = self._deal.at(batch_index)
    return self._streams[bucket].row(number * rows + place)

  def block(self, batch_index: int, rows: int) -> Block:
    """The block that a batch's first row is from."""
    bucket, number = self._deal.at(batch_index)
    return self._streams[bucket].block(number * rows // self._data.packing_rows)

  def _open(self, bucket: int) -> tuple[RowStream | None, float]:
    """The rows of a bucket, and how many of them its records need, in a unit that all buckets share; None and 0 where
    it has no records."""
    catalogue, data = self._catalogue, self._data
    parts = weighed(catalogue.parts or ((len(catalogue.tokens), 1.0),))
    wanted = self._wanted(bucket)
    chosen = [(choose(wanted, first, count), weight) for first, count, weight in parts]
    chosen = [(part, weight * part.count) for part, weight in chosen if part.count]
    if not chosen:
      return None, 0.0
    own, weights = zip(*chosen)
    stream = RowStream(
      catalogue.tokens,
      catalogue.images,
      RecordStream(own, weights, self._seed, bucket),
      rows=data.packing_rows,
      sequence_length=data.sequence_length,
      images_per_row=data.images_per_row,
      seed=self._seed,
      bucket=bucket,
    )
    return stream, sum(weights) / stream.block_records

  def _wanted(self, bucket: int) -> Callable[[slice], np.ndarray] | None:
    """Which records of a slice of all are the bucket's and fit a row; None where all of them are."""
    catalogue, data = self._catalogue, self._data
    if catalogue.buckets is None and not len(self.too_large):
      return None

    def wanted(some: slice) -> np.ndarray:
      fits = (catalogue.tokens[some] <= data.sequence_length) & (catalogue.images[some] <= data.images_per_row)
      return fits if catalogue.buckets is None else fits & (catalogue.buckets[some] == bucket)

    return wanted
