"""What draws prompts, and what comes of them: what training's sheets, evaluation and the commands are generic over."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import flax
import jax
import numpy as np
from jax import Array

from omniimage import seeds
from omniimage.data.text import TextTokenizer
from omniimage.models.omni import Params
from omniimage.sampling.prompts import pad, read_prompt
from omniimage.settings import SamplingSettings, Settings
from omniimage.streams import Stream, fold
from omniimage.vocabulary import Vocabulary


@flax.struct.dataclass
class Drawing:
  """What came of B prompts.

  Attributes:
    codes: what the pictures were planned as: (B, h, w) sampled visual tokens, an embedding (B, E); None if nothing was.
    rendering: (B, H, W, 3) of the tokenizer's own decoder, in [-1, 1], where another paints the images; else None.
    images: (B, H, W, 3), in [-1, 1].
  """

  codes: Array | None
  rendering: Array | None
  images: Array


class Draws(ABC):
  """Draws prompts with a model's parameters.

  Attributes:
    settings: of the run.
    vocabulary: of the sequences that its system reads.
    plans: whether pictures are planned before they are painted, so that `encode` says what true ones would have been
      planned as and `repaint` paints that.
  """

  settings: Settings
  vocabulary: Vocabulary
  text_tokenizer: TextTokenizer
  plans: ClassVar[bool] = False

  @property
  def patch_size(self) -> int:
    """Pixels along one side of the patches that pictures are made of."""
    return self.settings.decoder.patch_size

  @abstractmethod
  def load(self, params: Params):
    """Draws with other parameters from here on, without compiling again."""

  @abstractmethod
  def __call__(self, prompts: list[str], seed: int = 0, **changes) -> Drawing:
    """Draws each prompt once. `changes` override `settings.sampling`, for example `guidance=2.0`. SettingsError where
    they cannot be; UserError where a prompt is empty or too long."""

  def each(self, prompts: Sequence[str], seeds: Sequence[int], **changes) -> Drawing:
    """Draws each prompt with a seed of its own, as it would be drawn alone: what comes of it does not depend on the
    others. Errors as of a call."""
    drawn = [self([prompt], seed, **changes) for prompt, seed in zip(prompts, seeds, strict=True)]
    return jax.tree.map(lambda *rows: np.concatenate(rows), *drawn)

  def places(self, prompt: str) -> int:
    """How many a prompt is padded to: those with as many are drawn by one compiled program, whatever is beside them.
    Raises UserError."""
    return self.prompt_tokens([prompt])[0].shape[1]

  def draw(self, prompt: str, n: int = 1, seed: int = 0, **changes) -> Drawing:
    """`n` drawings of one prompt."""
    return self([prompt] * n, seed, **changes)

  def encode(self, images: Array) -> Array:
    """What images (B, H, W, 3), uint8 or float in [-1, 1], would be planned as."""
    raise NotImplementedError(f"{type(self).__name__} plans nothing")

  def repaint(self, prompts: list[str], codes: Array, seed: int = 0, **changes) -> Drawing:
    """Paints a given plan under the prompts."""
    raise NotImplementedError(f"{type(self).__name__} plans nothing")

  def prompt_tokens(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Prompts as tokens up to where codes begin: (B, P) padded on the right, and lengths (B,). Raises UserError."""
    v, size = self.vocabulary, self.settings.buckets[0]
    read = [read_prompt(prompt, self.settings, self.text_tokenizer) for prompt in prompts]
    return pad([[v.user, *tokens, v.assistant, *v.opening(size.rows, size.columns)] for tokens in read], v)

  def sampling(self, changes: dict[str, Any]) -> SamplingSettings:
    """The run's, with changes. SettingsError where they cannot be."""
    settings = self.settings
    return dataclasses.replace(settings, sampling=dataclasses.replace(settings.sampling, **changes)).sampling


def row_keys(seed: int, rows: int) -> Array:
  """(rows,) random keys of the drawings of a seed, one a row."""
  return jax.random.split(fold(seeds.key(seed), Stream.DRAWINGS), rows)


def keys_of(seeds: Sequence[int]) -> Array:
  """(n,) random keys of drawings of a seed each: what each would have alone."""
  return jax.numpy.concatenate([row_keys(seed, 1) for seed in seeds])
