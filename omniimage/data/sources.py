"""Sources of records: what a data set must answer, and the two that ship with the package.

A source knows an upper bound of the length of every record before reading one, over all the captions it may draw, so
that rows are packed from numbers alone. `open_source` makes one from the settings; a new data set is one more class
here and one more dataclass in `settings.SOURCES`.
"""

import re
from typing import Protocol

import numpy as np
from PIL import Image

from omniimage.data import conversation, emoji, scenes
from omniimage.data.conversation import ImageTurn, TextTurn, Turn
from omniimage.data.text import TextTokenizer
from omniimage.settings import DataSettings, ScenesSettings, SettingsError
from omniimage.vocabulary import Vocabulary

SCENES = {"train": 2**20, "test": 2**14}  # records; the world is endless, an epoch is not
SAMPLED_CAPTIONS = 512  # from which the words of the scenes are collected


class Source(Protocol):
  def __len__(self) -> int: ...

  def lengths(self) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, images) of every record, both (n,): no draw of the record has more. Tokens count images and `<eos>`."""

  def record(self, index: int, rng: np.random.Generator) -> list[Turn]:
    """The turns of a record; `rng` draws what varies between epochs. May raise: the record is then left out."""


def open_source(
  data: DataSettings, split: str, token_grid: int, text_tokenizer: TextTokenizer, vocabulary: Vocabulary
) -> Source:
  """The source that `data.source` names, of "train" or "test". ValueError if split, sizes or vocabulary do not fit."""
  if text_tokenizer.size > vocabulary.text_size:
    raise SettingsError(
      f"data.vocabulary={data.vocabulary!r} has {text_tokenizer.size} tokens, the model's vocabulary only "
      f"{vocabulary.text_size} text ids; build Vocabulary from this tokenizer's size"
    )
  if split not in SCENES:
    raise ValueError(f"there is no split {split!r}; give one of {', '.join(SCENES)}")
  if isinstance(data.source, ScenesSettings):
    return ScenesSource(data.source, split, data.image_size, token_grid, text_tokenizer)
  return EmojiSource(split, data.image_size, token_grid, text_tokenizer)


class ScenesSource:
  """Text → image over the procedural world: a caption, then its scene as the target."""

  def __init__(
    self, settings: ScenesSettings, split: str, image_size: int, token_grid: int, text_tokenizer: TextTokenizer
  ):
    if image_size < scenes.MIN_CELL * settings.grid:
      raise SettingsError(
        f"data.image_size={image_size} is too small for data.source.grid={settings.grid}: a cell needs "
        f"{scenes.MIN_CELL} pixels; enlarge the images, or give the grid fewer cells"
      )
    self._world = {"grid": settings.grid, "min_objects": settings.min_objects, "max_objects": settings.max_objects}
    self._split, self._image_size, self._token_grid = split, image_size, token_grid
    objects = range(settings.min_objects, settings.max_objects + 1)
    tokens_a_word = _tokens_a_word(settings, text_tokenizer)
    self._text_bounds = np.array([tokens_a_word * scenes.caption_words(n, settings.grid) for n in objects])

  def __len__(self) -> int:
    return SCENES[self._split]

  def lengths(self) -> tuple[np.ndarray, np.ndarray]:
    text = np.resize(self._text_bounds, len(self))  # record i has min_objects + i % (max − min + 1) objects
    return conversation.length(text, 1, self._token_grid), np.ones(len(self), int)

  def record(self, index: int, rng: np.random.Generator) -> list[Turn]:
    scene = scenes.scene_of(index, self._split, **self._world)
    image = scenes.render(scene, self._image_size)
    return [TextTurn(scenes.caption(scene, rng), is_target=False), ImageTurn(image, is_target=True)]


def _tokens_a_word(settings: ScenesSettings, text_tokenizer: TextTokenizer) -> int:
  """The most tokens that a word or punctuation mark of these scenes' captions takes: 1 in the vocabulary we ship."""
  rng, grid, objects = np.random.default_rng(0), settings.grid, settings.max_objects
  captions = [scenes.caption(scenes.draw_scene(rng, grid, objects), rng) for _ in range(SAMPLED_CAPTIONS)]
  words = {word for caption in captions for word in re.findall(r"\w+|[^\w\s]", caption)}

  def tokens(text: str) -> int:
    return len(text_tokenizer.encode(text))

  # Behind another word, as most of them are, with the space that belongs to it.
  most = max(tokens(f"a {word}" if word.isalnum() else f"a{word}") - tokens("a") for word in words)
  longest = max(captions, key=tokens)
  if tokens(longest) > most * scenes.caption_words(objects, grid):
    raise SettingsError(
      f"data.vocabulary merges across words: {longest!r} takes {tokens(longest)} tokens, more than {most} a word; "
      "use a tokenizer.json that splits text into words first"
    )
  return most


class EmojiSource:
  """Text → image over the emoji: one of a concept's captions, then its drawing as the target."""

  def __init__(self, split: str, image_size: int, token_grid: int, text_tokenizer: TextTokenizer):
    if image_size > emoji.SIZE:
      raise SettingsError(
        f"data.image_size={image_size}: the emoji are drawn at {emoji.SIZE} pixels, larger they would only blur; "
        f"set data.image_size to {emoji.SIZE} or less"
      )
    everything, chosen = emoji.load(), emoji.indices(split)
    self._concepts = [everything.concepts[i] for i in chosen]
    self._images = _resize(everything.images[chosen], image_size)
    self._text_tokenizer, self._token_grid = text_tokenizer, token_grid

  def __len__(self) -> int:
    return len(self._concepts)

  def lengths(self) -> tuple[np.ndarray, np.ndarray]:
    text = [emoji.caption_bound(c, lambda text: len(self._text_tokenizer.encode(text))) for c in self._concepts]
    return conversation.length(np.array(text), 1, self._token_grid), np.ones(len(self), int)

  def record(self, index: int, rng: np.random.Generator) -> list[Turn]:
    caption = emoji.caption(self._concepts[index], rng)
    return [TextTurn(caption, is_target=False), ImageTurn(self._images[index], is_target=True)]


def _resize(images: np.ndarray, size: int) -> np.ndarray:
  """(n,H,W,3) uint8 to (n,size,size,3), by Lanczos."""
  if images.shape[1:3] == (size, size):
    return images
  return np.stack(
    [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS)) for image in images]
  )
