"""Examples of a run, held out or not, and what its generator draws of them, in batches of one shape."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np
from absl import logging

from omniimage import streams
from omniimage.data.conversation import ImageTurn, Turn
from omniimage.data.sources import open_source
from omniimage.data.sources.source import Source
from omniimage.data.tasks import Task, text_of
from omniimage.data.text import TextTokenizer
from omniimage.errors import UserError
from omniimage.evaluation.sheets import to_uint8
from omniimage.sampling.drawing import Drawing, Draws
from omniimage.sampling.prompts import read_prompt
from omniimage.settings import Settings
from omniimage.streams import Stream

Example = Callable[[Task, Sequence[Turn]], tuple[str, np.ndarray] | None]

SPARE = 64  # records tried for each example that is looked for


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
  """`captions[i]` asks for `images[i]`, (n, H, W, 3) uint8."""

  captions: tuple[str, ...]
  images: np.ndarray


def prompt_and_target(task: Task, turns: Sequence[Turn]) -> tuple[str, np.ndarray] | None:
  """The words in which a conversation of a task asks for an image, and that image; None if it asks for none."""
  target = task.target(turns)
  return (text_of(task.prompt(turns)), target.image) if isinstance(target, ImageTurn) else None


def asked_in_words(task: Task, turns: Sequence[Turn]) -> tuple[str, np.ndarray] | None:
  """`prompt_and_target`; None where pictures are part of the prompt."""
  alone = not any(isinstance(turn, ImageTurn) for turn in task.prompt(turns))
  return prompt_and_target(task, turns) if alone else None


def pictured(task: Task, turns: Sequence[Turn]) -> tuple[str, np.ndarray] | None:
  """`prompt_and_target`, or the first image and all that is said where none is asked for; None without images."""
  images = (turn.image for turn in turns if isinstance(turn, ImageTurn))
  return prompt_and_target(task, turns) or next(((text_of(turns), image) for image in images), None)


def held_out(generator: Draws, n: int, seed: int, example: Example = asked_in_words) -> Examples:
  """The first `n` records of the test split that ask for different images, fewer if there are fewer; `seed` words their
  captions. `example` as of `read_examples`. UserError if there are none."""
  source, settings = open_split(generator, "test"), generator.settings
  return read_examples(source, distinct(source, settings), n, seed, settings, generator.text_tokenizer, example)


def picked(generator: Draws, split: str, n: int, seed: int) -> Examples:
  """`n` records from all over a split, "train" or "test", fewer if it has fewer; `seed` picks and words them. UserError
  if there are none."""
  source, settings = open_split(generator, split), generator.settings
  records = candidates(of_drawn_size(source, settings), n, seed)
  return read_examples(source, records, n, seed, settings, generator.text_tokenizer)


def of_drawn_size(source: Source, settings: Settings) -> Sequence[int]:
  """Indices of the records that are of the size which is drawn, the run's first bucket: pictures of one size make a
  sheet and can be measured together. A warning says once if there are others."""
  buckets = source.catalogue().buckets
  if buckets is None or not np.any(buckets):
    return range(len(source))
  found, size = np.flatnonzero(buckets == 0), settings.buckets[0]
  logging.log_first_n(
    logging.WARNING, "drawn and measured are the %d of %d records that are of %d×%d pixels, data.aspect_ratios[0]", 1,
    len(found), len(source), *size.pixels,
  )  # fmt: skip
  return found


def distinct(source: Source, settings: Settings) -> Iterator[int]:
  """Those of them, in order, that are not known to show what one before them does."""
  drawn = of_drawn_size(source, settings)
  return (
    i for i in source.distinct() if len(drawn) == len(source) or drawn[np.searchsorted(drawn, i) % len(drawn)] == i
  )


def pick(records: int, n: int, seed: int) -> np.ndarray:
  """At most `n` different indices from all over the records, in order."""
  return np.sort(streams.generator(Stream.EXAMPLES, seed).choice(records, min(n, records), replace=False))


def candidates(records: Sequence[int], n: int, seed: int) -> list[int]:
  """Those of the records that `pick` gives, and further ones to take the places of those that cannot be used."""
  places = dict.fromkeys([*pick(len(records), n, seed).tolist(), *pick(len(records), SPARE * n, seed).tolist()])
  return [int(records[place]) for place in places]


def open_split(generator: Draws, split: str) -> Source:
  """The "train" or "test" records of what a generator has learnt."""
  settings = generator.settings
  return open_source(settings.data, split, settings.buckets, generator.text_tokenizer, generator.vocabulary)


def read_examples(
  source: Source,
  records: Iterable[int],
  n: int,
  seed: int,
  settings: Settings,
  text_tokenizer: TextTokenizer,
  example: Example = asked_in_words,
) -> Examples:
  """The first `n` of these records that can be read and ask, in words, for an image that none before them shows.

  What a conversation of a task gives, words and image or None, `example` says.

  Others are passed over; one line of warning says how many could not be read. UserError if none is left.
  """
  found, shown, bad, tried = [], set(), [], 0
  for record in records:
    tried += 1
    try:
      turns = source.record(record, streams.generator(Stream.CAPTIONS, seed, record))
      pair = _checked(example(source.task(record), turns), settings, text_tokenizer)
    except Exception as error:  # as in training, one broken file must not end it
      bad.append(f"record {record}: {type(error).__name__}: {error}")
      continue
    if pair is not None and (pixels := pair[1].tobytes()) not in shown:
      shown.add(pixels)
      found.append(pair)
      if len(found) == n:
        break
  if bad:
    logging.warning("%d of %d records cannot be drawn and are left out; the first: %s", len(bad), tried, bad[0])
  if not found:
    raise UserError(f"none of {tried} records asks for an image in words that can be read")
  captions, images = zip(*found)
  return Examples(captions, np.stack(images))


def _checked(
  example: tuple[str, np.ndarray] | None, settings: Settings, text_tokenizer: TextTokenizer
) -> tuple[str, np.ndarray] | None:
  """The example; None where it has no words to draw by. ValueError where prompt or image do not fit the model."""
  if example is None or not example[0].strip():
    return None
  prompt, image = example
  read_prompt(prompt, settings, text_tokenizer)
  shape = (*settings.buckets[0].pixels, 3)
  if image.shape != shape:
    raise ValueError(f"an image of {image.shape}, data.image_size asks for {shape}")
  return example


def conversations(generator: Draws, suite: str, n: int, seed: int) -> tuple[Task, list[list[Turn]]]:
  """The task whose answers a suite reads, and its first `n` records of the test split that are known to be different,
  fewer if there are fewer; `seed` draws what varies of them. UserError if there is no such task."""
  source = open_split(generator, "test")
  task = graded_by(source, suite)
  if task is None:
    raise UserError(f"{suite} {ungraded(generator.settings.data.source.name)}")
  own = (i for i in distinct(source, generator.settings) if source.task(i) is task)
  return task, [source.record(i, streams.generator(Stream.CAPTIONS, seed, i)) for i in itertools.islice(own, n)]


def ungraded(learnt: str) -> str:
  """Why a suite without a task of its own measures nothing."""
  return f"grades answers that no task asks for: this run has learnt {learnt}"


def undrawn(learnt: str) -> str:
  """Why a suite of pictures measures nothing where no task is one of `draws_from_words`."""
  return f"draws from words alone, as no task does: this run has learnt {learnt}"


def draws_from_words(source: Source) -> bool:
  """Whether some task of a source asks for images in words alone, by a record of each."""
  for task in source.tasks:
    record = next((i for i in range(len(source)) if source.task(i) is task), None)
    try:
      turns = source.record(record, np.random.default_rng(0))
    except Exception:  # one broken record says nothing of the others
      return True
    if asked_in_words(task, turns) is not None:
      return True
  return False


def graded_by(source: Source, suite: str) -> Task | None:
  """The first task of a source whose answers a suite reads, as its grader says."""
  return next((task for task in source.tasks if task.grader is not None and task.grader.suite == suite), None)


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


def drawn(generator: Draws, captions: Sequence[str], seed: int, batch: int, codes: np.ndarray | None = None) -> Drawing:
  """Every caption drawn once, as uint8; with `codes` of n images, those are painted under the captions."""

  def draw(indices: np.ndarray, number: int) -> Drawing:
    prompts = [captions[i] for i in indices]
    noise = int(streams.generator(Stream.BATCHES_DRAWN, seed, number).integers(2**64, dtype=np.uint64))
    drawing = generator(prompts, noise) if codes is None else generator.repaint(prompts, codes[indices], noise)
    rendering, images = jax.tree.map(to_uint8, (drawing.rendering, drawing.images))
    return drawing.replace(rendering=rendering, images=images)

  lengths = [len(generator.text_tokenizer.encode(caption)) for caption in captions]
  return in_batches(draw, lengths, batch)
