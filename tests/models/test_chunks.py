import numpy as np
import pytest

from omniimage.models.chunks import ChunkLayout, DoubledChunks


def test_a_layout_divides_rows_into_stripes_the_first_shorter_by_the_offset():
  np.testing.assert_array_equal(ChunkLayout(6, 2, 2).chunk_of_group, [0, 0, 1, 1, 2, 2])
  np.testing.assert_array_equal(ChunkLayout(6, 2, 2, offset=1).chunk_of_group, [0, 1, 1, 2, 2, 3])
  np.testing.assert_array_equal(ChunkLayout(6, 2, 4).chunk_of_group, [0, 0, 0, 0, 1, 1])
  whole = ChunkLayout(6, 2, 0)
  assert whole.count == 1 and whole.finished == 0
  assert ChunkLayout(6, 2, 2).finished == 8


def test_blocks_are_painted_in_raster_order_and_their_patches_in_their_own():
  layout = ChunkLayout(4, 4, 2, chunk_columns=2)
  assert (layout.count, layout.group, layout.finished) == (4, 2, 12) and not layout.is_raster
  np.testing.assert_array_equal(layout.order, [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15])
  assert [layout.corner(chunk) for chunk in range(4)] == [(0, 0), (0, 2), (2, 0), (2, 2)]
  patches = np.arange(32).reshape(2, 16)
  np.testing.assert_array_equal(layout.raster(layout.ordered(patches)), patches)


def test_an_offset_narrows_the_first_blocks_and_every_group_stays_in_one_chunk():
  layout = ChunkLayout(4, 6, 2, offset=1, chunk_columns=4)
  np.testing.assert_array_equal(np.bincount(layout.chunk_of_patch), [3, 3, 6, 6, 3, 3])
  assert layout.group == 3
  assert all(len(set(own)) == 1 for own in layout.chunk_of_patch.reshape(-1, layout.group))
  assert ChunkLayout(4, 7, 2, offset=1, chunk_columns=4).group == 1, "columns of 3 and of 4"


@pytest.mark.parametrize("columns", [0, 1, 2, 3])
@pytest.mark.parametrize("context_rows", [0, 1, 2, 3, 5])
def test_a_window_holds_all_that_a_chunk_sees_and_the_chunk(columns, context_rows):
  layout = ChunkLayout(12, 6, 2, chunk_columns=columns)
  size = layout.rows * layout.columns // layout.count
  window = layout.window(context_rows)
  assert window % size == 0 and (window == 72) == (context_rows == 0)
  for chunk in range(layout.count):
    seen = (layout.chunk_of_patch <= chunk) & (layout.row_of_patch >= layout.first_visible_row(chunk, context_rows))
    assert (chunk + 1) * size - np.argmax(seen) <= window


BLOCKS = ChunkLayout(4, 6, 2, chunk_columns=3), ChunkLayout(4, 6, 2, offset=1, chunk_columns=4)


@pytest.mark.parametrize(
  "layout", [ChunkLayout(4, 3, 1), ChunkLayout(4, 3, 2), ChunkLayout(6, 2, 2, offset=1), *BLOCKS], ids=str
)
@pytest.mark.parametrize("context_rows", [0, 1, 2])
def test_a_noisy_chunk_never_sees_its_own_clean_copy(layout, context_rows):
  seen = DoubledChunks(layout, context_rows).dense(0, 0)
  chunk, M = layout.chunk_of_patch, layout.finished
  row = layout.order // layout.columns
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
