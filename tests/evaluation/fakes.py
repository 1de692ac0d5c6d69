"""A generator that draws what it is asked for, so that the suites' arithmetic can be known beforehand."""

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np

from configs import scenes as config
from omniimage import streams
from omniimage.data.conversation import ImageTurn
from omniimage.data.scenes.captions import parse
from omniimage.data.scenes.world import Scene, render
from omniimage.evaluation.held_out import open_split
from omniimage.evaluation.sheets import to_uint8
from omniimage.sampling.drawing import Drawing, Draws
from omniimage.sampling.events import Image
from omniimage.settings import Settings, from_config
from omniimage.streams import Stream
from tests import small


def settings(tasks: tuple[str, ...] = ("text_to_image",), **sampling) -> Settings:
  """The demo's scenes: up to four objects on a 2×2 grid, 32 pixels, two chunks."""
  scenes = config.get_config()
  scenes.data.source.tasks = tasks
  s = from_config(scenes)
  return dataclasses.replace(s, sampling=dataclasses.replace(s.sampling, **sampling))


class FakeGenerator(Draws):
  """Paints `painted(scene)` of the scene a prompt asks for, and always renders the scene itself."""

  plans = True

  def __init__(self, s: Settings, painted: Callable[[Scene], Scene] = lambda scene: scene):
    self.omni, self.text_tokenizer = small.omni(s), small.text_tokenizer()
    self.settings, self.vocabulary = s, self.omni.vocabulary
    self._painted, self.calls, self.repainted = painted, [], []

  def load(self, params):
    pass

  def __call__(self, prompts: list[str], seed: int = 0) -> Drawing:
    self.calls.append((len(prompts), seed))
    data = self.settings.data
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
    n, size = len(images), self.settings.buckets[0]
    side = size.pixels_per_token
    return images.reshape(n, size.rows, side, size.columns, side, 3).mean((2, 4, 5)).astype(np.int32)

  def reconstruct(self, images: np.ndarray) -> np.ndarray:
    return images / 127.5 - 1


class FakePartner(FakeGenerator):
  """Answers conversations of the test split by heart, after `spoiled(answer)`, a text or a picture, and no others.

  Where it is shown other pictures than those it knows, as those that it has spoiled itself, it goes by the words.
  """

  def __init__(self, s: Settings, records: int, seed: int = 0, spoiled: Callable = lambda answer: answer):
    """It knows the first `records`, in the words of a seed."""
    super().__init__(s)
    self._spoiled, self._answers = spoiled, {}
    self.said, self.roles, self.sizes = [], [], []  # of each conversation, and how many at once
    source = open_split(self, "test")
    for index in range(records):
      turns = source.record(index, streams.generator(Stream.CAPTIONS, seed, index))
      task, said = source.task(index), _said(turns)
      known = [(said[:place], said[place]) for place, turn in enumerate(turns) if turn.is_target]
      for prompt, answer in [*known, (_said(task.prompt(turns)), said[-1])]:
        self._answers[_words(prompt)] = self._answers[_exactly(prompt)] = answer

  def draw_after(self, conversations, seeds) -> Drawing:
    return together([finished(self, answer) for answer in self._heard(conversations, seeds)])

  def write_after(self, conversations, seeds) -> list[str]:
    return self._heard(conversations, seeds)

  def _heard(self, conversations, seeds):
    conversations = list(map(list, conversations))
    self.sizes.append(len(conversations))
    self.said += [(_said(turns), seed) for turns, seed in zip(conversations, seeds)]
    self.roles += [[turn.role for turn in turns] for turns in conversations]
    return [self._answer(_said(turns)) for turns in conversations]

  def __call__(self, prompts: list[str], seed: int = 0) -> Drawing:
    if not all(_words([prompt]) in self._answers for prompt in prompts):
      return super().__call__(prompts, seed)
    return together([finished(self, self._answer([prompt])) for prompt in prompts])

  def _answer(self, turns):
    return self._spoiled(self._answers.get(_exactly(turns), self._answers[_words(turns)]))


def finished(generator: FakeGenerator, image: np.ndarray) -> Image:
  """The event of a picture (H, W, 3) uint8."""
  pixels = image / np.float32(127.5) - 1
  return Image(generator.encode(image[None])[0], pixels, pixels)


def together(images: list[Image]) -> Drawing:
  return Drawing(*(np.stack([getattr(image, name) for image in images]) for name in ("codes", "rendering", "pixels")))


def _said(turns) -> list[str | np.ndarray]:
  return [turn.image if isinstance(turn, ImageTurn) else turn.text for turn in turns]


def _exactly(said) -> tuple:
  return tuple(one if isinstance(one, str) else hashlib.sha256(one).hexdigest() for one in said)


def _words(said) -> str:
  return " / ".join(one if isinstance(one, str) else "image" for one in said)


def recolored(scene: Scene) -> Scene:
  """The scene with another color on its first object."""
  first, *rest = scene.objects
  return Scene(scene.grid, (dataclasses.replace(first, color="red" if first.color != "red" else "blue"), *rest))
