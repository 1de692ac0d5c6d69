"""How a generator answers conversations of a task, one session each: what it paints or writes after their prompts."""

from collections.abc import Sequence

import numpy as np

from omniimage import streams
from omniimage.data.conversation import Turn
from omniimage.evaluation.sheets import to_uint8
from omniimage.sampling.events import Image, TextEnd
from omniimage.sampling.generate import Drawing, Generator
from omniimage.streams import Stream


def painted(generator: Generator, prompts: Sequence[Sequence[Turn]], seed: int) -> Drawing:
  """The picture that follows each prompt, as uint8."""
  images = []
  for number, prompt in enumerate(prompts):
    *_, image = generator.session(prompt, _seed(seed, number))
    assert isinstance(image, Image)
    images.append((image.codes, to_uint8(image.rendering), to_uint8(image.pixels)))
  return Drawing(*map(np.stack, zip(*images)))


def written(generator: Generator, prompts: Sequence[Sequence[Turn]], seed: int) -> list[str]:
  """The text that follows each prompt, up to where it ends or a picture begins."""
  texts = []
  for number, prompt in enumerate(prompts):
    events = generator.session(prompt, _seed(seed, number), text_first=True)
    texts.append(next(event.text for event in events if isinstance(event, TextEnd)))
  return texts


def _seed(seed: int, number: int) -> int:
  return int(streams.generator(Stream.BATCHES_DRAWN, seed, number).integers(2**64, dtype=np.uint64))
