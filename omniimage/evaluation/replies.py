"""How a generator answers conversations of a task: what it paints or writes after their prompts, in batches."""

from collections.abc import Sequence

import numpy as np

from omniimage import streams
from omniimage.data import conversation
from omniimage.data.conversation import Turn
from omniimage.evaluation.held_out import in_batches
from omniimage.evaluation.sheets import to_uint8
from omniimage.sampling.generate import Drawing, Generator
from omniimage.streams import Stream


def painted(generator: Generator, prompts: Sequence[Sequence[Turn]], seed: int, batch: int) -> Drawing:
  """The picture that follows each prompt, as uint8."""

  def paint(indices: np.ndarray, _: int) -> Drawing:
    drawing = generator.draw_after([prompts[i] for i in indices], [_seed(seed, i) for i in indices])
    return drawing.replace(rendering=to_uint8(drawing.rendering), images=to_uint8(drawing.images))

  return in_batches(paint, _lengths(generator, prompts), batch)


def written(generator: Generator, prompts: Sequence[Sequence[Turn]], seed: int, batch: int) -> list[str]:
  """The text that follows each prompt, up to where it ends or a picture begins."""

  def write(indices: np.ndarray, _: int) -> np.ndarray:
    texts = generator.write_after([prompts[i] for i in indices], [_seed(seed, i) for i in indices])
    return np.asarray(texts, object)

  return list(in_batches(write, _lengths(generator, prompts), batch))


def _lengths(generator: Generator, prompts: Sequence[Sequence[Turn]]) -> list[int]:
  """Their tokens."""
  v, size = generator.vocabulary, generator.settings.buckets[0]
  return [len(conversation.encode_prompt(turns, generator.text_tokenizer, v, size).tokens) for turns in prompts]


def _seed(seed: int, number: int) -> int:
  """Of the prompt of this number, in whichever batch it is."""
  return int(streams.generator(Stream.BATCHES_DRAWN, seed, int(number)).integers(2**64, dtype=np.uint64))
