"""The Fluent 3D emoji, `omniimage.data.emoji`: one of a concept's captions, then its drawing as the target."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from omniimage.data import conversation, emoji
from omniimage.data.conversation import Tokenizer, Turn
from omniimage.data.sources.source import Catalogue, Source, SourceSettings
from omniimage.data.tasks import Task, TextToImage
from omniimage.errors import SettingsError
from omniimage.size import Size


@dataclass(frozen=True)
class EmojiSettings(SourceSettings):
  """The emoji have nothing to set."""


class EmojiSource(Source):
  def __init__(self, settings: EmojiSettings, split: str, sizes: Sequence[Size], text_tokenizer: Tokenizer):
    size = sizes[0]
    image_size = size.side
    if image_size > emoji.SIZE:
      raise SettingsError(
        f"data.image_size={image_size}: the emoji are drawn at {emoji.SIZE} pixels, larger they would only blur; "
        f"set data.image_size to {emoji.SIZE} or less"
      )
    everything, chosen = emoji.load(), emoji.indices(split)
    self._concepts = [everything.concepts[i] for i in chosen]
    self._images = _resize(everything.images[chosen], image_size)
    self._text_tokenizer, self._size = text_tokenizer, size
    self.tasks = (TextToImage(),)

  def __len__(self) -> int:
    return len(self._concepts)

  def catalogue(self) -> Catalogue:
    text = [emoji.caption_bound(c, lambda text: len(self._text_tokenizer.encode(text))) for c in self._concepts]
    return Catalogue(conversation.length(np.array(text), 1, self._size), np.ones(len(self), int))

  def record(self, index: int, rng: np.random.Generator) -> list[Turn]:
    return self.task(index).turns((emoji.caption(self._concepts[index], rng), self._images[index]), rng)

  def task(self, index: int) -> Task:
    return self.tasks[0]


def _resize(images: np.ndarray, size: int) -> np.ndarray:
  """(n,H,W,3) uint8 to (n,size,size,3), by Lanczos."""
  if images.shape[1:3] == (size, size):
    return images
  return np.stack(
    [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS)) for image in images]
  )
