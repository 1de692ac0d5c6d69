"""What is asked of a model, and what is heard beside the events of its answer."""

import dataclasses
import time
from collections.abc import Hashable

import numpy as np

from omniimage.data.conversation import Turn
from omniimage.sampling.kept import Redraw
from omniimage.serving.feed import Feed
from omniimage.settings import SamplingSettings


@dataclasses.dataclass(frozen=True)
class Wish:
  """One answer, as a request asks for it.

  Attributes:
    turns: the conversation, pictures in the size that the model reads.
    size: of what is drawn, an aspect ratio of the run.
    answer: of `omniimage.sampling.session.ANSWERS`.
    previews: whether rows of codes are also wanted as the tokenizer renders them.
    redraw: a picture of which a part is drawn again, where the answer is one.
  """

  turns: tuple[Turn, ...]
  size: str
  seed: int
  answer: str
  sampling: SamplingSettings
  previews: bool = False
  redraw: Redraw | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Ask:
  """A wish that somebody waits for.

  Attributes:
    number: of the answer, among those of its feed.
    shape: two asks of the same can be drawn at once, with programs that are compiled once.
    since: when it was asked for, by `time.monotonic`.
  """

  wish: Wish
  feed: Feed
  number: int
  shape: Hashable
  since: float = dataclasses.field(default_factory=time.monotonic)


@dataclasses.dataclass(frozen=True, eq=False)
class Preview:
  """The tokenizer's rendering of the codes that came last, (h,W,3) float32 in [-1, 1]; `top` is its place on a canvas
  of `size` = (H, W), the size that the tokenizer reads."""

  pixels: np.ndarray
  top: int
  size: tuple[int, int]
