"""Chunks: how a canvas of patches is divided, and who sees whom when it is painted chunk by chunk.

In training the sequence is doubled, [finished | noisy], as in ACDiT (Hu et al. 2024). The last chunk has no finished
copy, since nothing is painted after it; so one chunk is the ordinary whole-canvas decoder. Axes: N patches of the
canvas, M finished patches, T = M + N.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class ChunkLayout:
  """Stripes of `chunk_rows` patch rows over a canvas of rows × columns patches.

  Attributes:
    chunk_rows: rows a chunk; 0 is the whole canvas.
    offset: rows by which the first chunk is shorter, so that borders do not always fall in the same place.
  """

  rows: int
  columns: int
  chunk_rows: int
  offset: int = 0

  @property
  def chunk_of_row(self) -> np.ndarray:
    """(rows,) index of the chunk each patch row belongs to."""
    height = self.chunk_rows or self.rows
    chunks = (np.arange(self.rows) + self.offset % height) // height
    return chunks - chunks[0]

  @property
  def count(self) -> int:
    return int(self.chunk_of_row[-1]) + 1

  @property
  def chunk_of_patch(self) -> np.ndarray:
    """(N,) int, raster order."""
    return np.repeat(self.chunk_of_row, self.columns)

  @property
  def finished_rows(self) -> int:
    """Patch rows that later chunks look back on."""
    return int(np.sum(self.chunk_of_row < self.count - 1))

  @property
  def finished(self) -> int:
    """M: patches that later chunks look back on."""
    return self.finished_rows * self.columns

  def first_visible_row(self, chunk: int, context_rows: int) -> int:
    """First patch row of finished chunks that `chunk` sees: `context_rows` above its own first row, or all (0)."""
    first = int(np.argmax(self.chunk_of_row == chunk))
    return max(first - context_rows, 0) if context_rows else 0


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
    chunk = layout.chunk_of_patch
    row = np.arange(len(chunk)) // layout.columns
    finished = slice(0, layout.finished)
    visible = np.asarray([layout.first_visible_row(c, self.context_rows) for c in range(layout.count)])
    in_context = row[None, finished] >= visible[chunk][:, None]
    up_to_own = (chunk[None, finished] <= chunk[:, None]) & in_context
    before_own = (chunk[None, finished] < chunk[:, None]) & in_context
    own = chunk[None] == chunk[:, None]
    top = np.concatenate([up_to_own[finished], np.zeros((layout.finished, len(chunk)), bool)], axis=1)
    return np.concatenate([top, np.concatenate([before_own, own], axis=1)], axis=0)
