"""Randomness: every use has a stream of its own, named here.

JAX's `split(key)[i]` is `fold_in(key, i)`, and NumPy fills a short seed up with zeros. So two uses of one key, or of
one seed, that both count from 0 draw the same numbers. Each therefore puts its stream first.
"""

import enum

import jax
import numpy as np
from jax import Array


class Stream(enum.IntEnum):
  """Numbers are for good: another number is another draw. Below 16 are the seeds of data sets, which are no run's."""

  # Of a run's seed.
  PARAMETERS = 16
  UPDATES = 17  # by step
  DRAWINGS = 18
  ORDER = 19  # of the records, by epoch, bucket and part
  BLOCK_ROWS = 20  # their order, by block and bucket
  RECORDS = 21  # captions and what else varies, by epoch and record
  EXAMPLES = 22  # which records are shown or asked for
  CAPTIONS = 23  # their words, by record
  BATCHES_DRAWN = 24  # a seed each, by number
  BUCKETS = 25  # of the batches, by block
  PARTS = 26  # of a mixture, by block and bucket
  SUBSETS = 27  # of pictures, over which a measure is averaged

  # Of an update.
  ROWS = 32  # by row
  LAYOUT = 33

  # Of a row of an update.
  TIMES = 48
  NOISE = 49
  FINISHED_SIGMA = 50
  FINISHED_NOISE = 51
  DROPPED_TOKENS = 52
  DROPPED_TEXT = 53
  TEACHER_FORCED_CODES = 54
  PAINTED_FROM_SAMPLED = 55
  LATENT_SIGMA = 56
  LATENT_NOISE = 57
  EMBEDDING_TIMES = 58
  EMBEDDING_NOISE = 59
  INTERVALS = 60  # of mean velocities
  FEW_STEPS = 61  # which images learn them
  CORRUPTED_CODES = 62  # which ones, and what stands in their place

  # Of a drawing.
  TOKENS = 64  # by place
  CHUNKS = 65  # by chunk
  WORDS = 66  # of a text, by place
  ANSWER_PARTS = 67  # of an answer behind its first text and its first image, by number of each
  VARIATIONS = 68  # which tokens of a picture stay
  EMBEDDINGS = 69

  # Of a prepared data set.
  VIEWS = 80  # parts of pictures, by record and variant


def fold(key: Array, stream: Stream, index: int | Array | None = None) -> Array:
  """The key of a stream or, with an index, of one draw of it."""
  key = jax.random.fold_in(key, int(stream))
  return key if index is None else jax.random.fold_in(key, index)


def generator(stream: Stream, seed: int, *index: int) -> np.random.Generator:
  """NumPy's generator of one draw of a stream."""
  return np.random.default_rng((int(stream), seed % 2**32, seed >> 32, *index))
