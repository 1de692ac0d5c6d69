"""Examples of a run, held out or not, and what its generator draws of them, in batches of one shape."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import numpy as np
from absl import logging

from omniimage import seeds
from omniimage.data.conversation import ImageTurn, TextTurn, Turn
from omniimage.data.sources import Source, open_source
from omniimage.errors import UserError
from omniimage.evaluation.sheets import to_uint8
from omniimage.sampling.generate import Drawing, Generator


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
  """`captions[i]` asks for `images[i]`, (n, H, W, 3) uint8."""

  captions: tuple[str, ...]
  images: np.ndarray


def held_out(generator: Generator, n: int, seed: int) -> Examples:
  """The first `n` records of the test split, fewer if it has fewer; `seed` words their captions."""
  source = _open(generator, "test")
  return _read(source, range(min(n, len(source))), seed)


def picked(generator: Generator, split: str, n: int, seed: int) -> Examples:
  """`n` records from all over a split, "train" or "test", fewer if it has fewer; `seed` picks and words them."""
  source = _open(generator, split)
  return _read(source, pick(len(source), n, seed), seed)


def pick(records: int, n: int, seed: int) -> np.ndarray:
  """At most `n` different indices from all over the records, in order."""
  return np.sort(np.random.default_rng(seed).choice(records, min(n, records), replace=False))


def _open(generator: Generator, split: str) -> Source:
  omni = generator.omni
  return open_source(
    omni.settings.data, split, omni.settings.token_grid, generator.text_tokenizer, omni.vocabulary
  )  # fmt: skip


def _read(source: Source, indices: Sequence[int], seed: int) -> Examples:
  found = []
  for index in indices:
    try:
      example = prompt_and_target(source.record(int(index), np.random.default_rng((seed, index))))
    except Exception as error:  # as in training, one broken file must not end it
      logging.warning("record %d is left out: %s: %s", index, type(error).__name__, error)
      continue
    if example is not None:
      found.append(example)
  if not found:
    raise UserError(f"none of {len(indices)} records asks for an image")
  captions, images = zip(*found)
  return Examples(captions, np.stack(images))


def prompt_and_target(turns: Sequence[Turn]) -> tuple[str, np.ndarray] | None:
  """The text before the last target image of a conversation, and that image; None if it paints nothing."""
  text, found = [], None
  for turn in turns:
    if isinstance(turn, TextTurn):
      text.append(turn.text)
    elif turn.is_target and isinstance(turn, ImageTurn):
      found = " ".join(text), turn.image
  return found


def deal(lengths: Sequence[int], batch: int) -> list[np.ndarray]:
  """Indices of at most `batch` items a batch, dealt from the longest to the shortest.

  So all batches but the last few are of one size, and their longest items are about as long as each other: prompts,
  which are padded to their batch's longest, keep one shape, and one compiled program draws them all.
  """
  longest_first = np.argsort(-np.asarray(lengths), kind="stable")
  count = math.ceil(len(lengths) / batch)
  return [longest_first[i::count] for i in range(count)]


def in_batches(apply: Callable, lengths: Sequence[int], batch: int):
  """`apply(indices, batch number)` over batches of one size, its results (pytrees of arrays) put back in order.

  A batch that is short of items repeats its first.
  """
  dealt = deal(lengths, batch)
  size = max(map(len, dealt))
  results = []
  for number, own in enumerate(dealt):
    result = apply(np.concatenate([own, np.repeat(own[:1], size - len(own))]), number)
    results.append([np.asarray(x)[: len(own)] for x in jax.tree.leaves(result)])
  in_order = np.argsort(np.concatenate(dealt))
  whole = [np.concatenate(parts)[in_order] for parts in zip(*results)]
  return jax.tree.unflatten(jax.tree.structure(result), whole)


def drawn(
  generator: Generator, captions: Sequence[str], seed: int, batch: int, codes: np.ndarray | None = None
) -> Drawing:
  """Every caption drawn once, as uint8; with `codes` (n, h, w), those are painted under the captions."""

  def draw(indices: np.ndarray, number: int) -> Drawing:
    prompts, noise = [captions[i] for i in indices], seeds.part(seed, number)
    drawing = generator(prompts, noise) if codes is None else generator.repaint(prompts, codes[indices], noise)
    return drawing.replace(rendering=to_uint8(drawing.rendering), images=to_uint8(drawing.images))

  lengths = [len(generator.text_tokenizer.encode(caption)) for caption in captions]
  return in_batches(draw, lengths, batch)
