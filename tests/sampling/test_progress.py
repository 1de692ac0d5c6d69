import jax
import jax.numpy as jnp
import numpy as np

from omniimage.sampling.generate import Drawing, Generator
from omniimage.sampling.progress import GRAY, chunk_frames, token_frames
from tests import small


def test_tokens_and_chunks_appear_one_by_one_and_end_in_the_drawing():
  s = small.settings(**{"decoder.chunk_rows": (1,), "decoder.patch_size": 8})
  model = small.omni(s, scan=False)
  generator = Generator(s, small.params(model), small.text_tokenizer())
  codes = jnp.arange(8).reshape(2, 2, 2)
  rendering = jax.jit(model.render)(generator.params, model.features(generator.params, codes)).clip(-1, 1)
  drawing = Drawing(codes, rendering, jax.random.uniform(jax.random.key(1), (2, 16, 16, 3)))

  tokens = np.asarray(token_frames(generator, drawing, index=1))
  assert tokens.shape == (5, 16, 16, 3)
  np.testing.assert_allclose(tokens[-1], drawing.rendering[1], atol=1e-5)
  assert (tokens[2][:8] != GRAY).mean() > 0.9 and (tokens[2][8:] == GRAY).all()  # the upper two of four codes

  chunks = np.asarray(chunk_frames(generator, drawing, index=1))
  assert chunks.shape == (3, 16, 16, 3) and (chunks[0] == GRAY).all()
  np.testing.assert_array_equal(chunks[1][:8], drawing.images[1][:8])
  assert (chunks[1][8:] == GRAY).all()
  np.testing.assert_array_equal(chunks[-1], drawing.images[1])
