"""Which records share a row: exact capacities, nothing twice, and a pure function of (seed, index)."""

import numpy as np
import pytest

from omniimage.data import packing
from omniimage.data.packing import RowStream, block_records, pack_block, record_at, records_between


def realistic(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """Conversations of 0 to 3 images of 64 codes, with texts from a line to a page."""
  rng = np.random.default_rng(seed)
  images = rng.choice([0, 1, 1, 1, 2, 3], n)
  text = np.clip(rng.lognormal(4, 0.7, n), 5, 400).astype(int)
  return text + images * 68 + 1, images


def used(packed, lengths):
  return np.array([sum(lengths[position] for position in row) for row in packed.rows])


@pytest.mark.parametrize(("sequence_length", "images_per_row"), [(1024, 16), (640, 3), (1024, 4)])
def test_no_row_holds_more_than_its_tokens_or_its_images(sequence_length, images_per_row):
  tokens, images = realistic(3000)
  packed = pack_block(tokens, images, 256, sequence_length, images_per_row)
  assert len(packed.rows) == 256
  assert used(packed, tokens).max() <= sequence_length and used(packed, images).max() <= images_per_row
  assert packed.fill == used(packed, tokens).sum() / (256 * sequence_length)


def test_every_record_of_a_block_has_one_place_or_is_counted_as_dropped():
  tokens, images = realistic(3000)
  packed = pack_block(tokens, images, 256, 1024, 16)
  places = [position for row in packed.rows for position in row]
  assert len(set(places)) == len(places) and set(places) <= set(range(3000))
  assert packed.dropped == 3000 - len(places) > 0


def test_a_record_is_dropped_only_if_no_row_has_room_for_it():
  tokens, images = realistic(3000)
  packed = pack_block(tokens, images, 256, 1024, 16)
  placed = {position for row in packed.rows for position in row}
  room, slots = 1024 - used(packed, tokens), 16 - used(packed, images)
  for position in set(range(3000)) - placed:
    assert not np.any((room >= tokens[position]) & (slots >= images[position]))


def test_records_that_fill_a_row_to_the_last_token_and_slot_share_it():
  assert pack_block([60, 40, 100], [1, 2, 3], 2, 100, 3) == packing.Packed(((0, 1), (2,)), dropped=0, fill=1.0)
  assert pack_block([60, 41], [0, 0], 1, 100, 1).dropped == 1
  assert pack_block([1, 1], [1, 1], 1, 100, 1).dropped == 1


def test_a_record_goes_where_it_fits_tightest():
  assert pack_block([90, 50, 45, 9], [0, 0, 0, 0], 3, 100, 1).rows == ((0, 3), (1, 2), ())


def test_packing_is_deterministic():
  tokens, images = realistic(2000)
  assert pack_block(tokens, images, 256, 1024, 8) == pack_block(tokens.tolist(), images.tolist(), 256, 1024, 8)


@pytest.mark.parametrize("rows", [128, 1024])
def test_rows_of_a_realistic_mix_are_95_percent_full_and_drop_little(rows):
  tokens, images = realistic(50_000)
  stream = RowStream(tokens, images, rows=rows, sequence_length=1024, images_per_row=16, seed=0)
  blocks = [stream.block(index) for index in range(4)]
  assert np.mean([block.fill for block in blocks]) >= 0.95
  assert np.mean([block.dropped for block in blocks]) <= 0.02


def test_images_bound_the_block_where_they_are_what_runs_short():
  tokens, images = np.full(1000, 50), np.ones(1000, int)
  assert block_records(tokens, images, 64, 1000, 2) == 128
  assert block_records(tokens, images, 64, 1000, 20) == 64 * 20
  assert block_records(tokens, 0 * images, 64, 1000, 1) == 64 * 20


def test_a_block_takes_no_more_records_than_its_rows_can_place():
  tokens, images = np.full(1000, 60), np.ones(1000, int)  # one of 100 tokens, though 1.67 would fit by the mean
  assert 64 <= block_records(tokens, images, 64, 100, 4) <= 65


def test_each_epoch_visits_every_record_once_in_another_order():
  epochs, records = records_between(0, 300, num_records=100, seed=3)
  orders = records.reshape(3, 100)
  assert epochs.tolist() == [0] * 100 + [1] * 100 + [2] * 100
  for order in orders:
    assert sorted(order) == list(range(100))
  assert not np.array_equal(orders[0], orders[1]) and not np.array_equal(orders[1], orders[2])
  assert not np.array_equal(records, records_between(0, 300, num_records=100, seed=4)[1])


def test_the_stream_of_records_is_the_same_from_any_place():
  epochs, records = records_between(0, 50, num_records=7, seed=3)
  assert [record_at(place, 7, seed=3) for place in range(50)] == list(zip(epochs, records))
  later = records_between(20, 50, num_records=7, seed=3)
  assert np.array_equal(later[0], epochs[20:]) and np.array_equal(later[1], records[20:])


def stream_of(seed=0, n=500):
  return RowStream(*realistic(n), rows=32, sequence_length=1024, images_per_row=8, seed=seed)


def test_a_row_does_not_depend_on_the_rows_read_before():
  in_order, backwards, other_seed = stream_of(), stream_of(), stream_of(seed=1)
  indices = range(0, 400, 7)
  rows = [in_order.row(index) for index in indices]
  assert rows == [backwards.row(index) for index in reversed(indices)][::-1]
  assert rows != [other_seed.row(index) for index in indices]


def test_the_stream_of_rows_walks_the_stream_of_records_block_by_block():
  stream = stream_of()
  W = stream.block_records
  for block in (0, 3):
    placed = [name for row in range(32 * block, 32 * (block + 1)) for name in stream.row(row)]
    offered = list(zip(*(array.tolist() for array in records_between(W * block, W * (block + 1), 500, seed=0))))
    assert set(placed) <= set(offered) and len(placed) == len(set(placed))
    assert W - len(placed) == round(stream.block(block).dropped * W)


def test_full_and_half_empty_rows_are_spread_over_a_block():
  tokens, images = realistic(20_000)
  stream = RowStream(tokens, images, rows=512, sequence_length=1024, images_per_row=8, seed=0)
  fill = np.array([sum(tokens[record] for _, record in stream.row(row)) for row in range(512)]) / 1024
  quarters = fill.reshape(4, -1).mean(axis=1)
  assert quarters.max() - quarters.min() < 0.05
