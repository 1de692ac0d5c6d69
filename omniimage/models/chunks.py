"""Chunks: how a canvas of patches is divided, and who sees whom when it is painted chunk by chunk.

Chunks are stripes or blocks, painted in raster order, and patches stand in painting order: those of a chunk together,
in its own raster. For stripes that is the raster of the canvas. In training the sequence is doubled, [finished |
noisy], as in ACDiT (Hu et al. 2024). The last chunk has no finished copy, since nothing is painted after it; so one
chunk is the ordinary whole-canvas decoder. Axes: N patches of the canvas, M finished patches, T = M + N.
"""

import dataclasses
import functools
import math

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class ChunkLayout:
  """Stripes of `chunk_rows` patch rows over a canvas of rows × columns patches, or blocks of `chunk_columns` of them.

  Attributes:
    chunk_rows: rows a chunk; 0 is as many as the canvas has.
    offset: patches by which the first stripe is lower, and the first block of a row narrower too, so that borders do
      not always fall in the same place.
    chunk_columns: columns a chunk; 0 is as many as the canvas has, and there is no border between columns.
  """

  rows: int
  columns: int
  chunk_rows: int
  offset: int = 0
  chunk_columns: int = 0

  @functools.cached_property
  def band_of_row(self) -> np.ndarray:
    """(rows,) which row of chunks each patch row belongs to."""
    return _bands(self.rows, self.chunk_rows, self.offset)

  @functools.cached_property
  def band_of_column(self) -> np.ndarray:
    """(columns,) which column of chunks each patch column belongs to."""
    return _bands(self.columns, self.chunk_columns, self.offset if self.chunk_columns else 0)

  @property
  def count(self) -> int:
    return int((self.band_of_row[-1] + 1) * (self.band_of_column[-1] + 1))

  @property
  def is_raster(self) -> bool:
    """Whether the painting order is the raster of the canvas."""
    return not self.band_of_column[-1]

  @functools.cached_property
  def order(self) -> np.ndarray:
    """(N,) place in the raster of each patch, in painting order."""
    across = self.band_of_column[-1] + 1
    return np.argsort((self.band_of_row[:, None] * across + self.band_of_column).ravel(), kind="stable")

  @functools.cached_property
  def chunk_of_patch(self) -> np.ndarray:
    """(N,) int, in painting order."""
    across = self.band_of_column[-1] + 1
    return np.sort((self.band_of_row[:, None] * across + self.band_of_column).ravel())

  @property
  def row_of_patch(self) -> np.ndarray:
    """(N,) row on the canvas, in painting order."""
    return self.order // self.columns

  @property
  def group(self) -> int:
    """Patches that follow each other and belong to one chunk, wherever one begins to count: a row of a stripe, of
    blocks what the widths of all have in common. They share their time."""
    return math.gcd(*np.bincount(self.band_of_column).tolist())

  @property
  def groups(self) -> int:
    return self.rows * self.columns // self.group

  @property
  def chunk_of_group(self) -> np.ndarray:
    """(N / group,) index of the chunk each group belongs to."""
    return self.chunk_of_patch[:: self.group]

  @property
  def finished(self) -> int:
    """M: patches that later chunks look back on, the first M."""
    return int(np.sum(self.chunk_of_patch < self.count - 1))

  @property
  def finished_groups(self) -> int:
    return self.finished // self.group

  def first_visible_row(self, chunk: int, context_rows: int) -> int:
    """First patch row of finished chunks that `chunk` sees: `context_rows` above its own first row, or all (0)."""
    first = int(self.row_of_patch[np.argmax(self.chunk_of_patch == chunk)])
    return max(first - context_rows, 0) if context_rows else 0

  def corner(self, chunk: int) -> tuple[int, int]:
    """Patch row and column of a chunk's first patch."""
    return divmod(int(self.order[np.argmax(self.chunk_of_patch == chunk)]), self.columns)

  @property
  def width(self) -> int:
    """Patch columns of a chunk, all being as large."""
    return self.chunk_columns or self.columns

  def window(self, context_rows: int) -> int:
    """Patches that lie, in painting order, between the first one that a chunk sees and its own last one, at most; in
    whole chunks, all being as large."""
    N, chunk = self.rows * self.columns, self.rows * self.columns // self.count
    if not context_rows:
      return N
    rows = self.chunk_rows or self.rows
    above = context_rows if self.is_raster else -(-context_rows // rows) * rows
    return min(-(-(above + rows) * self.columns // chunk) * chunk, N)

  def ordered(self, x_BN: jax.Array) -> jax.Array:
    """(B, N, …) from raster to painting order."""
    return x_BN if self.is_raster else x_BN[:, self.order]

  def raster(self, x_BN: jax.Array) -> jax.Array:
    """(B, N, …) from painting order to raster."""
    return x_BN if self.is_raster else x_BN[:, np.argsort(self.order)]


def _bands(length: int, size: int, offset: int) -> np.ndarray:
  size = size or length
  bands = (np.arange(length) + offset % size) // size
  return bands - bands[0]


@dataclasses.dataclass(frozen=True)
class DoubledChunks:
  """Who sees whom over [finished | noisy]: finished patches see finished patches of their own and earlier chunks; noisy
  ones see their own chunk and the finished chunks before it, never their own clean copy."""

  layout: ChunkLayout
  context_rows: int = 0

  def dense(self, queries: int, keys: int) -> np.ndarray | None:
    layout = self.layout
    if layout.count == 1:
      return None
    chunk, finished = layout.chunk_of_patch, slice(0, layout.finished)
    visible = np.asarray([layout.first_visible_row(c, self.context_rows) for c in range(layout.count)])
    in_context = layout.row_of_patch[None, finished] >= visible[chunk][:, None]
    up_to_own = (chunk[None, finished] <= chunk[:, None]) & in_context
    before_own = (chunk[None, finished] < chunk[:, None]) & in_context
    own = chunk[None] == chunk[:, None]
    top = np.concatenate([up_to_own[finished], np.zeros((layout.finished, len(chunk)), bool)], axis=1)
    return np.concatenate([top, np.concatenate([before_own, own], axis=1)], axis=0)
