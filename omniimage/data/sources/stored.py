"""What all sources of own data share: records on disk become turns, with pictures of the size of their bucket."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np

from omniimage.data.conversation import Tokenizer, Turn
from omniimage.data.images import FITS, BadImage, decode
from omniimage.data.records import Part, Picture, Record, Text
from omniimage.data.sources.source import Catalogue, Source, SourceSettings
from omniimage.data.tasks import Conversation, Task
from omniimage.errors import UserError, require
from omniimage.ranges import Range
from omniimage.size import Size
from omniimage.vocabulary import image_length

CAPTION = "{}"  # its place in a template
BOUNDARIES = 2  # where a caption meets its template; at each, words may break into a token more than apart


@dataclass(frozen=True)
class StoredSettings(SourceSettings):
  templates: tuple[str, ...]  # what is said of a captioned picture, {} its caption; one is drawn at each reading
  fit: str  # how a picture comes to the size of its bucket: crop, pad or stretch
  background: tuple[Annotated[int, Range(0, 255)], ...]  # red, green, blue: shows through what is transparent

  def __post_init__(self):
    super().__post_init__()
    require(self.fit in FITS, f"data.source.fit={self.fit!r} must be one of {', '.join(FITS)}")
    require(len(self.background) == 3, f"data.source.background={self.background} must be red, green and blue")
    require(bool(self.templates), f'data.source.templates=() say nothing; ("{CAPTION}",) is the caption alone')
    for template in self.templates:
      require(
        template.count(CAPTION) == 1,
        f"data.source.templates: {template!r} must have {CAPTION} once, where the caption goes",
      )


class Stored(Protocol):
  """The records of a split on disk. Picklable: worker processes get a copy."""

  def index(self) -> np.ndarray:
    """(n,) with the fields images, height, width and turn_tokens, as `omniimage.data.prepared.INDEX` has them."""

  def text_tokens(self, text_tokenizer: Tokenizer) -> np.ndarray:
    """(n,) int32: tokens of all texts of a record, the longest alternative of each."""

  def read(self, index: int) -> Record:
    """BadRecord where there is none."""

  def place(self, index: int) -> str:
    """Where its owner finds it, also where it cannot be read."""


class StoredSource(Source):
  """Records of a split, each of the bucket whose proportions are nearest to those of its picture."""

  def __init__(
    self,
    settings: StoredSettings,
    stored: Stored | None,
    sizes: Sequence[Size],
    text_tokenizer: Tokenizer,
    empty: str = "",
  ):
    """`stored`: None where the split has no records; `empty` then says what to do, for those who must have some."""
    self._settings, self._stored, self._sizes, self._empty = settings, stored, tuple(sizes), empty
    self._text_tokenizer = text_tokenizer
    around = [template.split(CAPTION) for template in settings.templates if template != CAPTION]
    tokens = [sum(len(text_tokenizer.encode(text.strip())) for text in texts) + BOUNDARIES for texts in around]
    self._around = max(tokens, default=0)  # tokens that a caption gets at most
    self.tasks = (Conversation(),)

  def __len__(self) -> int:
    return 0 if self._stored is None else len(self._stored.index())

  def catalogue(self) -> Catalogue:
    if self._stored is None:
      return Catalogue(np.zeros(0, np.int32), np.zeros(0, np.int32))
    index = self._stored.index()
    images, buckets = index["images"].astype(np.int32), nearest(index["height"], index["width"], self._sizes)
    text = self._stored.text_tokens(self._text_tokenizer) + np.where(images == 1, np.int32(self._around), np.int32(0))
    lengths = np.array([image_length(size) for size in self._sizes], np.int32)
    tokens = text + images * lengths[buckets] + index["turn_tokens"]
    return Catalogue(tokens, images, buckets if len(self._sizes) > 1 else None)

  def record(self, index: int, rng: np.random.Generator) -> list[Turn]:
    """BadRecord or BadImage, with its reason, where it cannot be shown."""
    record = self._stored.read(index)
    row = self._stored.index()[index]
    size = self._sizes[int(nearest(row["height"], row["width"], self._sizes))]
    pictures = self._pictures(record, size, rng)
    template = self._settings.templates[rng.integers(len(self._settings.templates))]
    template = template if _is_captioned(record) else CAPTION

    def shown(part: Part) -> str | np.ndarray:
      if isinstance(part, Picture):
        return pictures[part.index]
      return self._worded(template, part.texts[rng.integers(len(part.texts))])

    told = [(shown(part), turn.role == "assistant") for turn in record.turns for part in turn.content]
    return self.task(index).turns(told, rng)

  def task(self, index: int) -> Task:
    return self.tasks[0]

  def key(self, index: int) -> str:
    return self._stored.place(index)

  def distinct(self) -> Iterable[int]:
    """Of what is prepared none is known to show what another does. UserError if there is nothing."""
    if not len(self):
      raise UserError(self._empty)
    return range(len(self))

  def _pictures(self, record: Record, size: Size, rng: np.random.Generator) -> list[np.ndarray]:
    """Its images, in order, as turns show them."""
    return [self._decoded(record, index, size) for index in range(len(record.images))]

  def _decoded(self, record: Record, index: int, size: Size) -> np.ndarray:
    try:
      return decode(record.images[index], size, self._settings.fit, self._settings.background)
    except BadImage as reason:
      raise BadImage(f"image {index + 1} of {len(record.images)}: {reason}" if index else str(reason)) from None

  def _worded(self, template: str, caption: str) -> str:
    """The caption in its template; alone where the vocabulary makes more tokens of them than the catalogue says."""
    said = template.replace(CAPTION, caption)
    if template == CAPTION:
      return said
    tokens, alone = (len(self._text_tokenizer.encode(text)) for text in (said, caption))
    return said if tokens <= alone + self._around else caption


def nearest(heights: np.ndarray, widths: np.ndarray, sizes: Sequence[Size]) -> np.ndarray:
  """Which of these sizes has the nearest proportions to each picture's, by the logarithm of width to height; the first
  of those that are as near. Records without a picture, of height 0, have the first."""
  heights, widths = np.asarray(heights), np.asarray(widths)
  buckets = np.zeros(heights.shape, np.uint8)
  if len(sizes) == 1:
    return buckets
  aspects = np.log(np.maximum(widths, 1) / np.maximum(heights, 1)).astype(np.float32)
  least = np.full(heights.shape, np.inf, np.float32)
  for bucket, size in enumerate(sizes):
    height, width = size.pixels
    distance = np.abs(aspects - np.float32(np.log(width / height)))
    nearer = (distance < least - 1e-6) & (heights > 0)
    buckets, least = np.where(nearer, np.uint8(bucket), buckets), np.where(nearer, distance, least)
  return buckets


def _is_captioned(record: Record) -> bool:
  """Whether it is no more than a caption and the picture that it asks for."""
  parts = [(turn.role, type(part)) for turn in record.turns for part in turn.content]
  return parts == [("user", Text), ("assistant", Picture)]
