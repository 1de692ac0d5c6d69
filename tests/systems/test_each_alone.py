"""Prompts with a seed each are drawn as each would be alone, by every kind of drawer and over devices."""

import functools

import jax
import numpy as np
import pytest

from omniimage.distributed.spread import Spread
from omniimage.sampling.drawing import Draws
from tests import small
from tests.systems import compared

PROMPTS, SEEDS = ["a large red star", "a small blue circle", "a large red star"], [3, 2**40, 5]


@pytest.mark.parametrize("name", ["omni", "dalle1", "pixel_diffusion", "unclip"])
def test_each_prompt_is_drawn_as_alone(name):
  system = compared.system(compared.settings(name))
  generator = system.generator(small.params(system), small.text_tokenizer(), Spread(tuple(jax.devices()[:2])))
  each, alone = (
    draw(PROMPTS, SEEDS, temperature=1.0) for draw in (generator.each, functools.partial(Draws.each, generator))
  )
  if each.codes is not None:
    np.testing.assert_allclose(each.codes, alone.codes, atol=1e-4)
  np.testing.assert_allclose(each.images, alone.images, atol=1e-3)
  assert np.abs(np.asarray(each.images[0]) - each.images[2]).max() > 0.01, "another seed"
