"""Which records share a row: exact capacities, nothing twice, and a pure function of (seed, index)."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from omniimage.data import packing
from omniimage.data.packing import RowStream, pack_block, usual_records
from omniimage.data.record_stream import Chosen, RecordStream


def realistic(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """Conversations of 0 to 3 images of 64 codes, with texts from a line to a page."""
  rng = np.random.default_rng(seed)
  images = rng.choice([0, 1, 1, 1, 2, 3], n)
  text = np.clip(rng.lognormal(4, 0.7, n), 5, 400).astype(int)
  return text + images * 68 + 1, images


def of_all_kinds(rng, n: int) -> tuple[np.ndarray, np.ndarray]:
  """An image of 256 codes with its caption, text alone, several images of 64 codes: a third of each."""
  kind, several = rng.integers(0, 3, n), rng.integers(1, 4, n)
  caption, text = rng.integers(5, 81, n) + 261, rng.integers(10, 901, n)
  tokens = np.choose(kind, [caption, text, rng.integers(10, 101, n) + 68 * several + 1])
  return tokens, np.choose(kind, [np.ones(n, int), np.zeros(n, int), several])


def rows_of(tokens, images, rows, images_per_row=16, sequence_length=1024, seed=0) -> RowStream:
  records = RecordStream((Chosen(0, len(tokens)),), (1.0,), seed)
  capacity = {"rows": rows, "sequence_length": sequence_length, "images_per_row": images_per_row}
  return RowStream(tokens, images, records, **capacity, seed=seed)


def used(packed, lengths):
  return np.array([sum(lengths[position] for position in row) for row in packed.rows])


@pytest.mark.parametrize(("sequence_length", "images_per_row"), [(1024, 16), (640, 3), (1024, 4)])
def test_no_row_holds_more_than_its_tokens_or_its_images(sequence_length, images_per_row):
  tokens, images = realistic(3000)
  packed = pack_block(tokens, images, 256, sequence_length, images_per_row)
  assert len(packed.rows) == 256
  assert used(packed, tokens).max() <= sequence_length and used(packed, images).max() <= images_per_row
  assert packed.fill == used(packed, tokens).sum() / (256 * sequence_length)


def test_every_record_of_a_block_has_one_place_or_is_left():
  tokens, images = realistic(3000)
  packed = pack_block(tokens, images, 256, 1024, 16)
  places = [position for row in packed.rows for position in row]
  assert sorted([*places, *packed.left]) == list(range(3000)) and packed.left


def test_a_record_is_left_only_if_no_row_has_room_for_it():
  tokens, images = realistic(3000)
  packed = pack_block(tokens, images, 256, 1024, 16)
  room, slots = 1024 - used(packed, tokens), 16 - used(packed, images)
  for position in packed.left:
    assert not np.any((room >= tokens[position]) & (slots >= images[position]))


def test_records_that_fill_a_row_to_the_last_token_and_slot_share_it():
  assert pack_block([60, 40, 100], [1, 2, 3], 2, 100, 3) == packing.Packed(((2,), (0, 1)), (), fill=1.0)
  assert pack_block([60, 41], [0, 0], 1, 100, 1).left == (1,)
  assert pack_block([1, 1], [1, 1], 1, 100, 1).left == (1,)


def test_the_largest_record_goes_first_and_each_where_it_fits_tightest():
  assert pack_block([9, 45, 50, 90], [0, 0, 0, 0], 3, 100, 1).rows == ((0, 3), (1, 2), ())
  assert pack_block([10, 30, 65], [2, 1, 0], 2, 100, 2).rows == ((0, 2), (1,)), "two of two images is large"


def test_what_waits_comes_after_the_blocks_own_records_in_order():
  packed = pack_block([60, 30], [0, 0], 1, 100, 1, waiting=[(11, 0), (10, 1), (1, 0)])
  assert packed.rows == ((0, 1, 3),) and packed.left == (2, 4) and packed.fill == 1.0


def test_packing_is_deterministic():
  tokens, images = realistic(2000)
  assert pack_block(tokens, images, 256, 1024, 8) == pack_block(tokens.tolist(), images.tolist(), 256, 1024, 8)


MIXES = {
  "captions of 64 codes": lambda rng, n: (rng.integers(5, 81, n) + 69, np.ones(n, int)),
  "text alone": lambda rng, n: (rng.integers(10, 901, n), np.zeros(n, int)),
  "of all kinds": of_all_kinds,
}


@pytest.mark.parametrize("mix", MIXES)
def test_rows_are_96_percent_full_and_hardly_anything_is_dropped(mix):
  stream = rows_of(*MIXES[mix](np.random.default_rng(0), 50_000), rows=1024)
  blocks = [stream.block(index) for index in range(8)]
  assert np.mean([block.fill for block in blocks]) >= 0.96
  assert np.mean([block.dropped for block in blocks]) < 0.001


def test_images_bound_the_block_where_they_are_what_runs_short():
  tokens, images = np.full(1000, 50), np.ones(1000, int)
  assert usual_records(tokens, images, 64, 1000, 2) == 128
  assert usual_records(tokens, images, 64, 1000, 20) == 64 * 20
  assert usual_records(tokens, 0 * images, 64, 1000, 0) == 64 * 20


def test_a_block_takes_no_more_records_than_its_rows_can_place():
  tokens, images = np.full(1000, 60), np.ones(1000, int)  # one of 100 tokens, though 1.67 would fit by the mean
  assert usual_records(tokens, images, 64, 100, 4) == 64


def test_records_that_only_go_in_pairs_of_large_and_small_are_fewer_in_a_block():
  """How many there are of each varies from block to block, and large ones cannot take the place of small ones."""
  tokens, images = np.repeat([31, 40, 49, 58], 500), np.ones(2000, int)
  stream = rows_of(tokens, images, rows=256, images_per_row=2, sequence_length=96)
  blocks = [stream.block(index) for index in range(40)]
  assert usual_records(tokens, images, 256, 96, 2) > stream.block_records > 440
  assert np.mean([block.dropped for block in blocks]) < 0.002 and np.mean([block.fill for block in blocks]) > 0.85


def stream_of(seed=0, n=500):
  return rows_of(*realistic(n), rows=32, images_per_row=8, seed=seed)


def test_a_row_does_not_depend_on_the_rows_read_before():
  in_order, backwards, other_seed = stream_of(), stream_of(), stream_of(seed=1)
  indices = range(0, 400, 7)
  rows = [in_order.row(index) for index in indices]
  assert rows == [backwards.row(index) for index in reversed(indices)][::-1]
  assert rows != [other_seed.row(index) for index in indices]


def crowded(monkeypatch, n=400) -> RowStream:
  """Where rows are asked to hold more than they can."""
  monkeypatch.setattr(packing, "usual_records", lambda *args: int(1.08 * usual_records(*args)))
  monkeypatch.setattr(packing, "MAX_DROPPED", 1.0)
  return rows_of(*realistic(n), rows=32, images_per_row=8)


def test_the_stream_of_rows_walks_the_stream_of_records_block_by_block(monkeypatch):
  stream = crowded(monkeypatch)
  W, waiting, waited = stream.block_records, [], 0
  records = RecordStream((Chosen(0, 400),), (1.0,), 0)
  for block in range(30):
    placed = [name for row in range(32 * block, 32 * (block + 1)) for name in stream.row(row)]
    offered = set(zip(*(array.tolist() for array in records.between(W * block, W * (block + 1)))))
    assert set(placed) <= offered.union(*waiting) and len(placed) == len(set(placed))
    waited += len(set(placed) - offered)
    waiting = [group - set(placed) for group in (offered, *waiting)]
    assert sum(map(len, waiting[packing.WAITS :])) == round(stream.block(block).dropped * W)
    waiting = waiting[: packing.WAITS]
  assert waited > 50


def test_a_block_is_packed_alike_whatever_was_packed_before(monkeypatch):
  in_order, jumping = crowded(monkeypatch), crowded(monkeypatch)
  expected = [[in_order.row(row) for row in range(32 * index, 32 * index + 32)] for index in range(40)]
  assert sum(in_order.block(index).dropped for index in range(40)) > 0
  for index in (39, 7, 8, 3, 0, 20, 19):
    assert [jumping.row(row) for row in range(32 * index, 32 * index + 32)] == expected[index]


def test_records_that_were_dropped_find_a_place_in_another_epoch(monkeypatch):
  """It is chance that leaves a record out, most often a small one."""
  stream = crowded(monkeypatch)
  offered, placed, blocks = np.zeros(400, int), np.zeros(400, int), 300
  _, records = stream._records.between(0, blocks * stream.block_records)
  np.add.at(offered, records, 1)
  np.add.at(placed, [record for row in range(32 * blocks) for _, record in stream.row(row)], 1)
  assert placed.sum() < 0.999 * offered.sum() and np.min(placed / offered) > 0.8


def test_a_copy_of_a_stream_gives_the_same_rows():
  stream = stream_of()
  expected = [stream.row(index) for index in range(40)]
  assert [pickle.loads(pickle.dumps(stream)).row(index) for index in range(40)] == expected


def test_threads_that_want_one_block_pack_it_once(monkeypatch):
  stream, packed = stream_of(), []
  monkeypatch.setattr(packing, "pack_block", lambda *args: packed.append(1) or pack_block(*args))
  with ThreadPoolExecutor(4) as pool:
    rows = list(pool.map(stream.row, range(32)))
  assert len(packed) == 1 and len(set(map(tuple, rows))) > 16


def test_full_and_half_empty_rows_are_spread_over_a_block():
  tokens, images = realistic(20_000)
  stream = rows_of(tokens, images, rows=512, images_per_row=8)
  fill = np.array([sum(tokens[record] for _, record in stream.row(row)) for row in range(512)]) / 1024
  quarters = fill.reshape(4, -1).mean(axis=1)
  assert quarters.max() - quarters.min() < 0.05
