"""Weights in bfloat16 while drawing."""

import jax
import jax.numpy as jnp
import numpy as np

from omniimage.sampling.generate import Generator
from omniimage.sampling.weights import weights_as
from tests import small

PROMPTS = ["a large red star", "a small blue circle"]


def test_matrices_and_tables_take_half_the_memory_and_nothing_else_changes():
  params = small.params(small.omni(small.settings()))
  half = weights_as(params, "bfloat16")
  for (path, before), (_, after) in zip(jax.tree.leaves_with_path(params), jax.tree.leaves_with_path(half)):
    is_matrix = path[-1].key == "kernel" or path[1].key in ("embed", "head")
    assert after.dtype == (jnp.bfloat16 if is_matrix else np.float32), path
    np.testing.assert_allclose(before, np.asarray(after, np.float32), rtol=2**-8)
  size = lambda tree: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))  # noqa: E731
  assert size(half) < 0.52 * size(params)


def test_pictures_are_those_of_weights_that_were_rounded():
  settings = small.settings(**small.SHALLOW)
  half = weights_as(small.params(small.omni(settings)), "bfloat16")
  rounded = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), half)
  held, drawn = (Generator(settings, own, small.text_tokenizer())(PROMPTS, seed=3) for own in (half, rounded))
  np.testing.assert_array_equal(held.codes, drawn.codes)
  np.testing.assert_allclose(held.images, drawn.images, atol=1e-3)
