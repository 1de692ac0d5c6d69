"""The systems of configs/systems.py at a size for tests."""

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import systems
from omniimage.data.batches import Batches
from omniimage.data.sources import open_source
from omniimage.settings import Settings, from_config
from omniimage.systems import open_system
from omniimage.systems.system import System
from tests import small

NAMES = tuple(systems.SYSTEMS)


def config(name: str, **changes) -> ConfigDict:
  """The tiny form with one layer a part, width 32, at 16 pixels (2×2 patches); `changes` by dotted key."""
  result = systems.get_config(f"{name}_tiny")
  for part in (result.tokenizer, result.prior, result.decoder):
    part.width, part.heads, part.mlp_width = 32, 2, 64
  result.prior.kv_heads = result.decoder.kv_heads = 2
  result.prior.head_width = 16
  result.prior.depth = result.decoder.depth = 1
  result.data.packing_rows, result.data.source.max_objects = 16, 2
  result.sampling.diffusion_steps = 4
  for stage in result.stages.values():
    stage.rows, stage.steps, stage.warmup_steps = 8, 4, 0
  with result.unlocked():
    small.put(result, changes)
  return result


def settings(name: str, **changes) -> Settings:
  return from_config(config(name, **changes))


def system(s: Settings, **execution) -> System:
  return open_system(s, small.text_tokenizer().size, **execution)


def batch(s: Settings, index: int = 0) -> dict[str, np.ndarray]:
  """Of eight rows."""
  vocabulary = system(s).vocabulary
  source = open_source(s.data, "train", s.buckets, small.text_tokenizer(), vocabulary)
  return Batches(source, s.data, vocabulary, small.text_tokenizer(), s.buckets, s.seed).batch(index, 8)


def keys(seed: int = 0):
  return jax.random.split(jax.random.key(seed), 8)
