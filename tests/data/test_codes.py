"""Codes as they are stored."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omniimage.data import codes
from omniimage.data.records import BadRecord


@given(
  st.tuples(*[st.integers(1, 4)] * 3),
  st.sampled_from([2, 256, 2**16, 2**16 + 1, 2**24]),
  st.randoms(use_true_random=False),
)
def test_codes_come_back_in_two_bytes_or_four(shape, codebook, random):
  given = np.array([random.randrange(codebook) for _ in range(np.prod(shape))], np.int32).reshape(shape)
  given.flat[0] = codebook - 1
  stored = codes.to_bytes(given, codebook)
  assert len(stored) == codes.HEADER.size + given.size * (2 if codebook <= 2**16 else 4)
  found = codes.from_bytes(stored)
  assert found.dtype == np.int32
  np.testing.assert_array_equal(found, given)


def test_why_there_are_none_comes_back_as_the_error():
  with pytest.raises(BadRecord, match="truncated JPEG: es endet \u00fcbel"):
    codes.from_bytes(codes.why_none("truncated JPEG: es endet \u00fcbel"))


@given(st.binary(max_size=40))
def test_other_bytes_are_never_anything_but_a_bad_record(stored):
  try:
    assert codes.from_bytes(stored).ndim == 3
  except BadRecord as reason:
    assert "\n" not in str(reason) or stored[:1] == codes.REASON
