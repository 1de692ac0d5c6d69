import numpy as np
import pytest

from omniimage.models.chunks import ChunkLayout, DoubledChunks


def test_a_layout_divides_rows_into_stripes_the_first_shorter_by_the_offset():
  np.testing.assert_array_equal(ChunkLayout(6, 2, 2).chunk_of_row, [0, 0, 1, 1, 2, 2])
  np.testing.assert_array_equal(ChunkLayout(6, 2, 2, offset=1).chunk_of_row, [0, 1, 1, 2, 2, 3])
  np.testing.assert_array_equal(ChunkLayout(6, 2, 4).chunk_of_row, [0, 0, 0, 0, 1, 1])
  whole = ChunkLayout(6, 2, 0)
  assert whole.count == 1 and whole.finished == 0
  assert ChunkLayout(6, 2, 2).finished == 8


@pytest.mark.parametrize("layout", [ChunkLayout(4, 3, 1), ChunkLayout(4, 3, 2), ChunkLayout(6, 2, 2, offset=1)])
@pytest.mark.parametrize("context_rows", [0, 1, 2])
def test_a_noisy_chunk_never_sees_its_own_clean_copy(layout, context_rows):
  seen = DoubledChunks(layout, context_rows).dense(0, 0)
  chunk, M = layout.chunk_of_patch, layout.finished
  row = np.arange(len(chunk)) // layout.columns
  for q, c in enumerate(chunk):
    noisy_row = seen[M + q]
    top = layout.first_visible_row(c, context_rows)
    np.testing.assert_array_equal(noisy_row[:M], (chunk[:M] < c) & (row[:M] >= top))
    np.testing.assert_array_equal(noisy_row[M:], chunk == c)
    if q < M:
      np.testing.assert_array_equal(seen[q, :M], (chunk[:M] <= c) & (row[:M] >= top))
      assert not seen[q, M:].any()


def test_context_rows_bound_how_far_back_a_chunk_sees():
  layout = ChunkLayout(8, 1, 2)
  seen = DoubledChunks(layout, context_rows=2).dense(0, 0)
  np.testing.assert_array_equal(seen[layout.finished + 6][: layout.finished], [0, 0, 0, 0, 1, 1])
