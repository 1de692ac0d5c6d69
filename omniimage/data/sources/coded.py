"""Records whose images are codes that were made once, `omniimage.data.codes`."""

import numpy as np

from omniimage.data import codes
from omniimage.data.records import BadRecord, Record
from omniimage.data.sources.stored import StoredSource
from omniimage.size import Size


class CodedSource(StoredSource):
  """As `StoredSource`, and a turn shows the codes (h, w) of its image. Where there are several variants, all images of
  a record are of the same one, so that what belongs together stays so."""

  def _pictures(self, record: Record, size: Size, rng: np.random.Generator) -> list[np.ndarray]:
    found = [self._read(record, index) for index in range(len(record.images))]
    variants = min(map(len, found), default=1)
    chosen = rng.integers(variants) if variants > 1 else 0  # with one, the words drawn are those of the images' batches
    return [variants_Vhw[chosen] for variants_Vhw in found]

  def _read(self, record: Record, index: int) -> np.ndarray:
    try:
      return codes.from_bytes(record.images[index])
    except BadRecord as reason:
      raise BadRecord(f"image {index + 1} of {len(record.images)}: {reason}" if index else str(reason)) from None
