"""Images that are drawn at once, event by event, are those of each conversation alone, however the batch is filled."""

import functools

import numpy as np
import pytest

from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.sampling.events import Chunk, Codes, Image
from tests import small

SEEDS = (3, 9)


@functools.cache
def _conversations():
  picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
  return (
    [TextTurn("a red star", False)],
    [ImageTurn(picture, False), TextTurn("a large blue ring in the middle", False)],
  )


@pytest.mark.parametrize("changes", [{}, {"guidance": 2.5, "chunk_rows": 1}], ids=str)
def test_what_is_drawn_together_is_what_each_session_draws(changes):
  generator = small.generator()
  steps = list(generator.draw_together(_conversations(), SEEDS, rows=4, places=64, **changes))
  assert all(len(step) == 2 for step in steps), "what fills the batch is not given"
  for own, conversation, seed in zip(zip(*steps), _conversations(), SEEDS):
    alone = list(generator.session(conversation, seed, **changes))
    assert [type(event) for event in own] == [type(event) for event in alone]
    for one, other in zip(own, alone):
      match one:
        case Codes():
          assert (one.first, one.grid) == (other.first, other.grid)
          np.testing.assert_array_equal(one.codes, other.codes)
        case Chunk():
          assert (one.place, one.size) == (other.place, other.size)
          np.testing.assert_allclose(one.pixels, other.pixels, atol=1e-5)
        case Image():
          np.testing.assert_array_equal(one.codes, other.codes)
          np.testing.assert_allclose(one.rendering, other.rendering, atol=1e-5)
          np.testing.assert_allclose(one.pixels, other.pixels, atol=1e-5)
