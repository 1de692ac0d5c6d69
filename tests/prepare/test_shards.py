"""What is kept of the parts, and how it is cut into files."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from omniimage.prepare import shards
from omniimage.prepare.parts import ROW
from tests import numbers_to_try


def table(lengths, part_of=None) -> shards.Table:
  rows = np.zeros(len(lengths), ROW)
  rows["length"] = lengths
  return shards.Table(rows, np.array(part_of or [0] * len(lengths)))


def originals(contents, test=None) -> list[int]:
  rows = np.zeros(len(contents), ROW)
  rows["content"] = np.reshape(contents, (-1, 2))
  rows["test"] = test or [False] * len(contents)
  return shards.originals(rows).tolist()


def test_the_first_of_equal_records_is_kept():
  assert originals([(5, 5), (1, 2), (5, 5), (1, 3), (1, 2), (5, 5)]) == [0, 1, 0, 3, 1, 0]
  assert originals([]) == []


def test_of_equal_records_one_for_tests_is_kept_so_that_none_is_trained_on_too():
  assert originals([(1, 1), (1, 1), (2, 2), (1, 1)], [False, True, False, True]) == [1, 1, 2, 1]


@numbers_to_try.REPEATABLE
@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=60), st.integers(1, 10**6))
def test_shards_hold_every_record_once_in_order_and_about_as_many_bytes_each(lengths, shard_bytes):
  rows = table(lengths)
  rows.rows["offset"] = np.arange(len(lengths))
  chosen = np.arange(len(lengths))
  plan = shards.plan(rows, chosen, "a-train", shard_bytes)
  assert np.concatenate([task.offsets for task in plan]).tolist() == chosen.tolist()
  assert [task.name for task in plan] == [f"a-train.array_record-{i:05d}-of-{len(plan):05d}" for i in range(len(plan))]
  assert all(0 < task.lengths.sum() <= 1.5 * shard_bytes + max(lengths) for task in plan)


def test_a_part_is_deleted_once_no_shard_needs_it(tmp_path):
  plan = shards.plan(table([10] * 6, [0, 0, 0, 1, 1, 1]), np.arange(6), "a-train", 20)
  assert [task.parts.tolist() for task in plan] == [[0, 0], [0, 1], [1, 1]]
  for number in range(2):
    shards.Part(tmp_path, number).records.touch()
  free, left = shards.emptied(tmp_path, plan), []
  for task in plan:
    free(task)
    left.append(sorted(path.name for path in tmp_path.iterdir()))
  assert left == [["000000.records", "000001.records"], ["000001.records"], []]
