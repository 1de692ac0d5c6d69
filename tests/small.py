"""A model small enough to learn in a test, and a batch to learn."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import scenes
from omniimage.data import conversation
from omniimage.data.batches import Batches
from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.data.sources import open_source
from omniimage.data.sources.source import Catalogue, Source
from omniimage.data.tasks import TextToImage
from omniimage.data.text import TextTokenizer
from omniimage.models.omni import Omni
from omniimage.sampling.generate import Generator
from omniimage.settings import Settings, from_config
from omniimage.size import Size
from omniimage.systems.omni import OmniSystem

SHALLOW = {"prior.depth": 1, "decoder.depth": 1}  # quicker to compile, where depth does not matter
WITHOUT_NOISE = {  # t = 1 to float32, nothing dropped: the painter's loss is a function of the batch alone
  "decoder.time_mean": 30.0,
  "decoder.time_std": 0.0,
  "decoder.finished_noise": 0.0,
  "decoder.drop_tokens": 0.0,
  "decoder.drop_text": 0.0,
}


def put(config, changes: Mapping[str, Any]):
  """Sets values of a config, or of a plain dict, by dotted key."""
  for key, value in changes.items():
    *groups, name = key.split(".")
    functools.reduce(lambda group, part: group[part], groups, config)[name] = value


def config(**changes) -> ConfigDict:
  """The tiny scenes config at 16 pixels (2×2 visual tokens, 4×4 patches, two chunks); `changes` by dotted key."""
  result = scenes.get_config("tiny")
  result.data.image_size = 16
  result.data.source.max_objects = 2
  result.data.sequence_length = 64
  result.data.images_per_row = 2
  result.data.packing_rows = 16
  result.data.drop_text = 0.0
  for part in (result.tokenizer, result.prior, result.decoder):
    part.width, part.heads, part.mlp_width = 32, 2, 64
  result.prior.kv_heads, result.prior.head_width, result.decoder.kv_heads = 2, 16, 2
  result.tokenizer.levels = (8, 8)
  result.decoder.patch_size = 4
  result.decoder.text_length = 24
  result.sampling.diffusion_steps = 4
  result.sampling.temperature = 1.0
  for stage in result.stages.values():
    stage.rows, stage.steps, stage.warmup_steps = 8, 10, 0
  with result.unlocked():
    put(result, changes)
  return result


def settings(**changes) -> Settings:
  return from_config(config(**changes))


def learnt(quantizer: str, codes: int = 32, **changes) -> Settings:
  """`settings` with a codebook that is learnt."""
  result = config()
  del result.tokenizer.levels
  result.tokenizer.update(dict(quantizer=quantizer, codes=codes, code_width=4, beta=0.25))
  put(result, changes)
  return from_config(result)


@functools.cache
def text_tokenizer() -> TextTokenizer:
  return TextTokenizer.load()


def omni(s: Settings, **fields) -> Omni:
  return Omni(s, text_tokenizer().size, **{"scan": s.scan_layers, **fields})


def system(s: Settings, **execution) -> OmniSystem:
  return OmniSystem(s, text_tokenizer().size, **execution)


def params(model: Omni | OmniSystem, seed: int = 0):
  """Random everywhere: what starts at zero or one is moved, so that no path is closed by its initial value."""
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    noise = 0.2 * rng.standard_normal(leaf.shape, np.float32)
    return noise + 1 if path[-1].key == "scale" else noise

  return jax.tree.map_with_path(draw, jax.eval_shape(model.init, jax.random.key(0)))


@functools.cache
def generator() -> Generator:
  """That of `settings(**SHALLOW)` and random parameters, one for all tests that do not change it."""
  s = settings(**SHALLOW)
  return Generator(s, params(omni(s)), text_tokenizer())


def fond_of(*liked: str) -> Generator:
  """A generator whose model is fond of writing some specials, by their names in the vocabulary: texts that end."""
  model = omni(settings(**SHALLOW))
  fond = params(model)
  head = fond["prior"]["embed" if model.settings.prior.tied_head else "head"]
  head["text"] = np.asarray(head["text"]).copy()
  for name in liked:
    which = getattr(model.vocabulary, name)
    head["text"][(which, slice(None)) if model.settings.prior.tied_head else (slice(None), which)] *= 2.5
  _fond().load(fond)
  return _fond()


@functools.cache
def _fond() -> Generator:
  return Generator(settings(**SHALLOW), {}, text_tokenizer())


def batch(s: Settings, rows: int = 8, index: int = 0) -> dict[str, np.ndarray]:
  model = omni(s)
  source = open_source(s.data, "train", s.buckets, text_tokenizer(), model.vocabulary)
  batches = Batches(source, s.data, model.vocabulary, text_tokenizer(), s.buckets, s.seed)
  return batches.batch(index, rows)


class Noise(Source):
  """Images of random pixels, of any size, after a caption."""

  def __init__(self, size: Size):
    self.size, self.tasks = size, (TextToImage(),)

  def __len__(self) -> int:
    return 64

  def catalogue(self) -> Catalogue:
    images = np.ones(len(self), int)
    return Catalogue(conversation.length(8 * images, images, self.size), images)

  def record(self, index: int, rng: np.random.Generator):
    image = rng.integers(0, 256, (*self.size.pixels, 3)).astype(np.uint8)
    return [TextTurn("a large red star", False), ImageTurn(image, True)]

  def task(self, index: int) -> TextToImage:
    return self.tasks[0]


def noise(s: Settings, size: Size, rows: int = 8) -> dict[str, np.ndarray]:
  """A batch of random images of a size, which need not be that of the settings."""
  return Batches(Noise(size), s.data, omni(s).vocabulary, text_tokenizer(), (size,), s.seed).batch(0, rows)
