"""The stream of records: epochs of each part of a mixture, in its weight, from any place."""

import numpy as np
import pytest

from omniimage.data.record_stream import Chosen, RecordStream, choose, weighed


def stream(*parts, weights=None, seed=3, bucket=0) -> RecordStream:
  return RecordStream(parts, weights or (1.0,) * len(parts), seed, bucket)


def test_each_epoch_visits_every_record_once_in_another_order():
  epochs, records = stream(Chosen(0, 100)).between(0, 300)
  orders = records.reshape(3, 100)
  assert epochs.tolist() == [0] * 100 + [1] * 100 + [2] * 100
  assert all(sorted(order) == list(range(100)) for order in orders)
  assert not np.array_equal(orders[0], orders[1]) and not np.array_equal(orders[1], orders[2])
  assert not np.array_equal(records, stream(Chosen(0, 100), seed=4).between(0, 300)[1])


@pytest.mark.parametrize("parts", [(Chosen(0, 7),), (Chosen(0, 7), Chosen(7, 900), Chosen(907, 2))])
def test_the_stream_is_the_same_from_any_place(parts):
  epochs, records = stream(*parts).between(0, 2500)
  for start, stop in ((0, 1), (20, 50), (1020, 1030), (2499, 2500), (9, 9)):
    later = stream(*parts).between(start, stop)
    assert np.array_equal(later[0], epochs[start:stop]) and np.array_equal(later[1], records[start:stop])


def test_parts_are_drawn_by_weight_each_in_epochs_of_its_own():
  epochs, records = stream(Chosen(0, 10), Chosen(10, 5000), weights=(0.25, 0.75)).between(0, 4 * 1024)
  small = records < 10
  assert small.sum() == 1024 and epochs[~small].max() == 0 and epochs[small].max() == 102
  for epoch in range(102):
    assert sorted(records[small & (epochs == epoch)]) == list(range(10)), "every record once an epoch"
  assert len(set(records[~small].tolist())) == np.sum(~small)


def test_two_parts_of_one_size_do_not_go_through_their_records_in_step():
  _, records = stream(Chosen(0, 500), Chosen(500, 500)).between(0, 1000)
  first, second = records[records < 500], records[records >= 500] - 500
  n = min(len(first), len(second))
  assert np.sum(first[:n] == second[:n]) < 10


def test_only_listed_records_come_up():
  listed = np.array([3, 5, 90], np.int32)
  assert sorted(stream(Chosen(0, 3, listed)).between(0, 3)[1].tolist()) == [3, 5, 90]


def test_records_are_chosen_by_a_mask_in_pieces_and_all_of_them_need_no_list(monkeypatch):
  monkeypatch.setattr("omniimage.data.record_stream.AT_A_TIME", 8)
  lengths, asked = np.arange(100) % 7, []

  def wanted(some: slice) -> np.ndarray:
    asked.append(some.stop - some.start)
    return lengths[some] < 3

  found = choose(wanted, 10, 85)
  assert found.listed.tolist() == [i for i in range(10, 95) if i % 7 < 3] and found.listed.dtype == np.int32
  assert max(asked) <= 8 and sum(asked) == 85
  assert choose(lambda some: lengths[some] >= 0, 10, 85).listed is None
  assert choose(lambda some: lengths[some] > 9, 10, 85).count == 0


def test_parts_without_records_or_weight_are_left_out_and_weights_are_of_a_record():
  assert weighed([(10, 0.5), (0, 0.2), (40, 0.5), (7, 0.0)]) == [(0, 10, 0.05), (10, 40, 0.0125)]
