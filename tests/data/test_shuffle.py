"""A shuffle that remembers nothing: a permutation of any number of records, and one that looks like chance."""

import collections

import numpy as np
import pytest

from omniimage.data.shuffle import permuted


def order(n: int, seed: int = 3, epoch: int = 0) -> np.ndarray:
  return permuted(np.arange(n), n, seed, epoch)


@pytest.mark.parametrize("sizes", [range(1, 130), (255, 256, 257, 4095, 4096, 4097, 65_537, 300_007)])
def test_every_record_has_one_place_whatever_their_number(sizes):
  for n in sizes:
    assert np.array_equal(np.sort(order(n)), np.arange(n)), n


def test_any_places_are_found_without_the_others_and_in_any_order():
  whole, places = order(1000), np.random.default_rng(0).permutation(1000)[:100]
  assert np.array_equal(permuted(places, 1000, 3, 0), whole[places])
  assert permuted(np.array([], int), 1000, 3, 0).shape == (0,)


def test_places_of_more_records_than_fit_into_memory_are_different_and_in_range():
  n = 10**15 + 37
  places = np.concatenate([np.arange(20_000), np.arange(n - 20_000, n)])
  records = permuted(places, n, 0, 0)
  assert len(set(records.tolist())) == 40_000 and records.min() >= 0 and records.max() < n
  assert abs(records.mean() / n - 0.5) < 0.01


def test_epochs_seeds_and_other_names_of_a_draw_give_unrelated_orders():
  n = 10_000
  orders = [order(n), order(n, epoch=1), order(n, seed=4), permuted(np.arange(n), n, 3, 0, 1), np.arange(n)]
  for i, one in enumerate(orders):
    for other in orders[:i]:
      assert abs(np.corrcoef(one, other)[0, 1]) < 0.05 and (one == other).sum() < 10


def test_neighbours_in_the_data_set_are_no_neighbours_in_an_epoch():
  n = 100_000
  records = order(n)
  for distance in (1, 2, 316, 317):  # the last two: the sides of the network's square
    assert abs(np.corrcoef(records[:-distance], records[distance:])[0, 1]) < 0.015
  assert (np.abs(np.diff(records)) == 1).sum() < 10  # two are expected


def test_any_stretch_of_an_epoch_has_records_from_all_over():
  """χ² of how many records of 20 stretches are from each of 20 parts of the data set, 361 degrees of freedom."""
  n = 100_000
  table = np.histogram2d(np.arange(n), order(n), bins=20)[0]
  assert 260 < np.sum((table - n / 400) ** 2) / (n / 400) < 470


def test_over_many_seeds_every_record_comes_to_every_place_as_often():
  n, seeds = 23, 4000
  table = np.zeros((n, n))
  for seed in range(seeds):
    table[np.arange(n), order(n, seed)] += 1
  assert 0.8 < np.sum((table - seeds / n) ** 2) / (seeds / n) / (n - 1) ** 2 < 1.25


def test_of_three_records_every_order_comes_up():
  found = collections.Counter(tuple(order(3, seed).tolist()) for seed in range(1200))
  assert len(found) == 6 and min(found.values()) > 150
