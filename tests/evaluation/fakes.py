"""A generator that draws what it is asked for, so that the suites' arithmetic can be known beforehand."""

import dataclasses
from collections.abc import Callable

import numpy as np

from configs import scenes as config
from omniimage.data.scenes.captions import parse
from omniimage.data.scenes.world import Scene, render
from omniimage.evaluation.sheets import to_uint8
from omniimage.sampling.generate import Drawing
from omniimage.settings import Settings, from_config
from tests import small


def settings(**sampling) -> Settings:
  """The demo's scenes: up to four objects on a 2×2 grid, 32 pixels, two chunks."""
  s = from_config(config.get_config())
  return dataclasses.replace(s, sampling=dataclasses.replace(s.sampling, **sampling))


class FakeGenerator:
  """Paints `painted(scene)` of the scene a prompt asks for, and always renders the scene itself."""

  def __init__(self, s: Settings, painted: Callable[[Scene], Scene] = lambda scene: scene):
    self.omni, self.text_tokenizer = small.omni(s), small.text_tokenizer()
    self._painted, self.calls, self.repainted = painted, [], []

  def __call__(self, prompts: list[str], seed: int = 0) -> Drawing:
    self.calls.append((len(prompts), seed))
    data = self.omni.settings.data
    asked = [parse(prompt, data.source.grid) for prompt in prompts]
    images, rendering = (
      np.stack([render(scene, data.image_size) for scene in some]) / 127.5 - 1
      for some in (map(self._painted, asked), asked)
    )
    return Drawing(self.encode(to_uint8(rendering)), rendering, images)

  def repaint(self, prompts: list[str], codes: np.ndarray, seed: int = 0) -> Drawing:
    self.repainted.append(codes)
    return self(prompts, seed).replace(codes=codes)

  def encode(self, images: np.ndarray) -> np.ndarray:
    """Codes that tell pictures apart: the mean brightness of each token's pixels."""
    n, size = len(images), self.omni.settings.buckets[0]
    side = size.pixels_per_token
    return images.reshape(n, size.rows, side, size.columns, side, 3).mean((2, 4, 5)).astype(np.int32)

  def reconstruct(self, images: np.ndarray) -> np.ndarray:
    return images / 127.5 - 1


def recolored(scene: Scene) -> Scene:
  """The scene with another color on its first object."""
  first, *rest = scene.objects
  return Scene(scene.grid, (dataclasses.replace(first, color="red" if first.color != "red" else "blue"), *rest))
