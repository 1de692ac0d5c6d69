"""Dealing places among labels: exact shares, and any place without those before it."""

import pickle

import numpy as np
import pytest

from omniimage.data.dealing import BLOCK, Deal, counts
from omniimage.streams import Stream


def deal(*shares, seed=0, index=()) -> Deal:
  return Deal(counts(shares), Stream.PARTS, seed, index)


@pytest.mark.parametrize(
  ("shares", "expected"),
  [
    ((1.0,), (1024,)),
    ((3, 1), (768, 256)),
    ((1, 1, 1), (342, 341, 341)),
    ((1, 0, 1), (512, 0, 512)),
    ((1, 1e-9), (1023, 1)),
    ((1e300, 1e300), (512, 512)),
    ((1e-9, 1e-9, 5), (1, 1, 1022)),
  ],
)
def test_shares_become_whole_numbers_by_largest_remainder_and_none_becomes_nothing(shares, expected):
  assert counts(shares) == expected


def test_counts_add_up_and_are_within_one_of_their_shares_where_those_are_large_enough():
  rng = np.random.default_rng(0)
  for _ in range(200):
    shares = rng.uniform(0.05, 1, rng.integers(1, 20))
    found = np.asarray(counts(shares))
    assert found.sum() == BLOCK and np.abs(found - shares / shares.sum() * BLOCK).max() < 1


def test_as_many_labels_as_places_get_one_each_and_more_are_an_error():
  assert set(counts(np.random.default_rng(0).random(BLOCK) ** 9 + 1e-12)) == {1}
  for shares in ((), (0.0,), [1.0] * (BLOCK + 1)):
    with pytest.raises(ValueError, match="expected 1 to 1024"):
      counts(shares)


def test_every_block_has_each_label_in_its_share_in_an_order_of_its_own():
  labels, numbers = deal(2, 1, 1).between(0, 4 * BLOCK)
  blocks = labels.reshape(4, BLOCK)
  assert all(np.bincount(block).tolist() == [512, 256, 256] for block in blocks)
  assert not np.array_equal(blocks[0], blocks[1])
  for label in range(3):
    assert numbers[labels == label].tolist() == list(range(np.sum(labels == label))), "one after the other"


def test_a_place_is_found_without_those_before_it():
  labels, numbers = deal(5, 3, 0, 1).between(0, 3000)
  later = deal(5, 3, 0, 1)
  for place in (2999, 1024, 1023, 0, 2047):
    assert later.at(place) == (labels[place], numbers[place])
  some = later.between(900, 2100)
  assert np.array_equal(some[0], labels[900:2100]) and np.array_equal(some[1], numbers[900:2100])


def test_a_label_alone_has_all_places():
  labels, numbers = deal(0, 7).between(5, 9)
  assert labels.tolist() == [1] * 4 and numbers.tolist() == [5, 6, 7, 8]


def test_seeds_and_names_of_a_deal_give_other_orders_and_a_copy_gives_the_same():
  first = deal(1, 1).between(0, 200)[0]
  assert np.array_equal(pickle.loads(pickle.dumps(deal(1, 1))).between(0, 200)[0], first)
  for other in (deal(1, 1, seed=1), deal(1, 1, index=(1,))):
    assert 60 < np.sum(first != other.between(0, 200)[0]) < 140
