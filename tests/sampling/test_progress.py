import numpy as np

from omniimage.sampling.events import Image
from omniimage.sampling.generate import GRAY, Generator
from omniimage.sampling.progress import chunk_frames, token_frames
from tests import small


def test_tokens_and_chunks_appear_in_the_drawings_own_order_and_end_in_it():
  """It is painted in other chunks than the run's settings have."""
  s = small.settings(**small.SHALLOW)
  generator = Generator(s, small.params(small.omni(s)), small.text_tokenizer())
  assert s.sampling.chunk_rows == 2
  events = list(generator.session("a red star", chunk_rows=1))
  image = events[-1]
  assert isinstance(image, Image)

  tokens = list(token_frames(generator, events))
  assert len(tokens) == 3 and (tokens[0] == GRAY).all()
  assert (tokens[1][:8] != GRAY).mean() > 0.9 and (tokens[1][8:] == GRAY).all()  # the upper two of four codes
  np.testing.assert_allclose(tokens[-1], image.rendering, atol=1e-5)

  chunks = list(chunk_frames(events))
  assert len(chunks) == 5 and (chunks[0] == GRAY).all()
  np.testing.assert_array_equal(chunks[1][:4], image.pixels[:4])
  assert (chunks[1][4:] == GRAY).all()
  np.testing.assert_array_equal(chunks[-1], image.pixels)
