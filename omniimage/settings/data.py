"""What is learnt from, and how it is packed."""

import dataclasses
from typing import Annotated

from omniimage.data.sources.source import SourceSettings
from omniimage.ranges import Range, Ranged
from omniimage.settings.kinds import PartialShare, Share


@dataclasses.dataclass(frozen=True)
class DataSettings(Ranged):
  source: SourceSettings
  image_size: Annotated[int, Range(1, 2**14)]  # pixels along one side of a square
  aspect_ratios: tuple[str, ...]  # width:height of the buckets, each of about as many pixels; the first is drawn
  sequence_length: Annotated[int, Range(1, 2**16)]  # tokens a packed row holds
  images_per_row: Annotated[int, Range(0, 1024)]  # image slots a packed row holds; 0 is text alone
  packing_rows: Annotated[int, Range(1, 2**16)]  # rows that one block of records is packed into
  drop_text: PartialShare  # share of conversations without their text, for guidance
  vocabulary: str  # "builtin" or the path of a tokenizer.json
  max_bad_records: Share  # share of the records read of late that may be unreadable; above it the run stops
  workers: Annotated[int, Range(0, 512)]  # processes that read and decode ahead; 0: threads of the run's own
  # Folder that launch.prepare --tokenize has made, for stages that need no pixels; "": all stages read images.
  codes: str = ""
