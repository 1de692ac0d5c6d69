"""Which bucket and which records a batch has: shares, parts of mixtures, and nothing replayed."""

import dataclasses
import pickle
import time

import numpy as np
import pytest

from omniimage.data.batch_stream import BatchStream
from omniimage.data.dealing import BLOCK
from omniimage.data.sources.source import Catalogue
from tests.data.test_batches import DATA

WIDE = dataclasses.replace(DATA, sequence_length=200, packing_rows=32)


def catalogue(n: int, buckets=None, parts=(), tokens=None) -> Catalogue:
  lengths = np.random.default_rng(0).integers(10, 60, n) if tokens is None else tokens
  return Catalogue(lengths, np.arange(n) % 3, None if buckets is None else np.asarray(buckets), parts)


def records_of(stream: BatchStream, batches, rows: int = 8) -> list[tuple[int, int]]:
  return [name for index in batches for row in range(rows) for name in stream.row(index, rows, row)]


def test_a_batch_has_records_of_its_bucket_alone():
  buckets = np.random.default_rng(1).integers(0, 3, 900)
  stream, found = BatchStream(catalogue(900, buckets), 3, WIDE, seed=0), set()
  for index in range(60):
    own = {buckets[record] for _, record in records_of(stream, [index])}
    assert own == {stream.bucket(index)}
    found |= own
  assert found == {0, 1, 2}


def test_buckets_get_batches_in_the_share_of_the_rows_that_their_records_need():
  buckets = np.repeat([0, 2, 3], [3000, 900, 100])
  tokens = np.where(buckets == 2, 100, 50)  # a row holds half as many
  data = dataclasses.replace(WIDE, images_per_row=20)
  stream = BatchStream(catalogue(4000, buckets, tokens=tokens), 4, data, seed=0)
  found = np.bincount([stream.bucket(index) for index in range(BLOCK)], minlength=4)
  assert found.sum() == BLOCK and found == pytest.approx(BLOCK * np.array([3000, 0, 1800, 100]) / 4900, rel=0.03, abs=1)
  rare = BatchStream(catalogue(4000, np.arange(4000) == 17), 2, WIDE, seed=0)
  assert sum(rare.bucket(index) for index in range(BLOCK)) == 1, "a bucket with a record is never left out"


def test_every_bucket_goes_through_its_records_epoch_by_epoch():
  buckets = np.random.default_rng(1).integers(0, 2, 300)
  stream = BatchStream(catalogue(300, buckets), 2, WIDE, seed=0)
  for bucket in (0, 1):
    own = [index for index in range(400) if stream.bucket(index) == bucket]
    names = records_of(stream, own)
    last = max(epoch for epoch, _ in names)
    assert last > 3 and len(names) == len(set(names)), "no record twice in an epoch"
    for epoch in range(last - 1):
      seen = {record for at, record in names if at == epoch}
      assert len(seen) >= 0.98 * np.sum(buckets == bucket)


@pytest.mark.parametrize("bucketed", [False, True])
def test_parts_of_a_mixture_are_drawn_by_weight(bucketed):
  """Whatever buckets their records are in: a fifth of the second part's is in a bucket where the first has none."""
  buckets = np.where(np.arange(2000) < 1500, 0, np.arange(2000) % 5 == 0) if bucketed else None
  parts = ((1500, 0.6), (500, 0.4))
  stream = BatchStream(catalogue(2000, buckets, parts, np.full(2000, 30)), 2, WIDE, seed=0)
  records = np.array([record for _, record in records_of(stream, range(BLOCK), rows=4)])
  assert np.mean(records >= 1500) == pytest.approx(0.4, abs=0.01)
  assert len(set(records.tolist())) > 1990


def test_a_part_without_weight_or_records_is_never_drawn():
  stream = BatchStream(catalogue(100, parts=((50, 1.0), (0, 3.0), (50, 0.0))), 1, WIDE, seed=0)
  assert {record for _, record in records_of(stream, range(20))} == set(range(50))


def test_batches_are_the_same_in_any_order_and_in_a_copy():
  buckets, parts = np.arange(900) % 3, ((400, 1.0), (500, 2.0))
  stream = BatchStream(catalogue(900, buckets, parts), 3, WIDE, seed=0)
  expected = {index: records_of(stream, [index]) for index in range(0, 3000, 151)}
  copy = pickle.loads(pickle.dumps(stream))
  assert {index: records_of(copy, [index]) for index in reversed(expected)} == expected
  other = BatchStream(catalogue(900, buckets, parts), 3, WIDE, seed=1)
  assert records_of(other, [0]) != expected[0]


def test_a_bucket_that_the_run_has_not_is_an_error():
  with pytest.raises(ValueError, match="records of bucket 2, and the run has 2"):
    BatchStream(catalogue(9, np.arange(9) % 3), 2, WIDE, seed=0)


# --------------------------------------------------------------------------------------------------- what it costs


class Counted(np.ndarray):
  """An array that counts what is looked up in it."""

  looked_up = 0

  def __getitem__(self, key):
    found = super().__getitem__(key)
    Counted.looked_up += np.size(found)
    return found


def test_batch_10_000_touches_no_more_records_than_batch_50():
  """A resumed run begins with an empty cache."""
  given, touched = catalogue(50_000, np.arange(50_000) % 2), {}
  counted = dataclasses.replace(given, tokens=given.tokens.view(Counted), images=given.images.view(Counted))
  for index in (50, 10_000):  # none of the first blocks, before which there are fewer
    stream = BatchStream(counted, 2, WIDE, seed=0)
    Counted.looked_up = 0
    assert records_of(stream, [index])
    touched[index] = Counted.looked_up
  assert 0 < touched[10_000] <= 1.1 * touched[50] < 5000


def test_a_million_records_are_opened_at_once_and_without_lists():
  tokens = np.random.default_rng(0).integers(10, 60, 10**6).astype(np.int32)
  given = Catalogue(tokens, np.ones(10**6, np.int8))
  began = time.perf_counter()
  stream = BatchStream(given, 1, dataclasses.replace(WIDE, packing_rows=256, sequence_length=400), seed=0)
  assert time.perf_counter() - began < 2, "well under a second, on a machine that does nothing else"
  assert stream._streams[0]._records.parts[0].listed is None
