"""No two uses of randomness draw the same numbers."""

import jax
import numpy as np
import pytest

from omniimage.sampling.autoregressive import sample_ids
from omniimage.sampling.generate import row_keys
from omniimage.streams import Stream, fold, generator
from tests import small


def test_no_two_streams_share_a_number():
  assert len({int(stream) for stream in Stream}) == len(Stream.__members__) and min(Stream) >= 16


def test_the_keys_of_a_run_of_an_update_of_a_row_and_of_a_drawing_are_all_different():
  run = jax.random.key(0)
  update, row = fold(run, Stream.UPDATES, 0), fold(fold(run, Stream.UPDATES, 0), Stream.ROWS, 0)
  keys = [*jax.random.split(fold(run, Stream.PARAMETERS), 3), *(fold(run, Stream.UPDATES, i) for i in range(3))]
  keys += [*jax.random.split(fold(update, Stream.LAYOUT)), *(fold(update, Stream.ROWS, i) for i in range(3))]
  keys += [fold(row, stream) for stream in Stream if 48 <= stream < 64]
  keys += [
    fold(key, stream, i) for key in row_keys(0, 2) for stream in (Stream.TOKENS, Stream.CHUNKS) for i in range(3)
  ]
  data = {tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in keys}
  assert len(data) == len(keys)


def test_numbers_of_data_differ_by_stream_seed_and_every_index():
  draws = [
    generator(stream, seed, *index).integers(2**62)
    for stream in (Stream.ORDER, Stream.BLOCK_ROWS, Stream.RECORDS)
    for seed in (0, 1, 2**32, 2**63)
    for index in ((0,), (1,), (0, 1), (1, 1))
  ]
  assert len(set(draws)) == len(draws)


@pytest.mark.parametrize("place", [0, 1])
def test_the_noise_of_a_chunk_does_not_lean_on_the_code_of_the_same_number(place):
  """Both from the same key, as they were, the noise had a mean of .2 where the first of two equal codes was drawn."""
  keys, sampling = row_keys(0, 2048), small.settings(**{"sampling.temperature": 1.0}).sampling
  codes = sample_ids(
    np.zeros((2048, 2), np.float32), jax.vmap(lambda key: fold(key, Stream.TOKENS, place))(keys), sampling
  )
  noise = jax.vmap(lambda key: jax.random.normal(fold(key, Stream.CHUNKS, place), (2,)))(keys)
  for lean in np.asarray(noise)[np.asarray(codes) == 0].mean(0):
    assert abs(lean) < 4 / 1024**0.5
