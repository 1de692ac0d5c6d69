"""DALL·E 1 is ours without the painter: the same losses, the same codes, rendered by the tokenizer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import small
from tests.systems import compared


@pytest.fixture(scope="module")
def both():
  """Ours and it, of one size, and their parameters."""
  ours = compared.system(compared.settings("omni"))
  stages = compared.settings("dalle1").stages
  s = dataclasses.replace(ours.settings, system="dalle1", stages=stages, schedule=("prior",))
  system, params = compared.system(s), small.params(ours)
  return ours, system, params, {part: params[part] for part in system.parts}


def test_its_losses_are_ours(both):
  ours, system, params, own = both
  batch, keys = compared.batch(ours.settings), compared.keys()
  for name in system.settings.stages:
    stage = system.settings.stages[name]
    loss, terms = jax.jit(lambda p, stage=stage: system.losses(stage, p, batch, keys, (), system.totals(batch)))(own)
    expected, their = jax.jit(
      lambda p, stage=stage: ours.losses(stage, p, batch, keys, jnp.int32(0), ours.totals(batch))
    )(params)
    assert terms.keys() == their.keys() and float(loss) == pytest.approx(float(expected), rel=1e-6) and loss > 0


def test_its_parameters_are_ours_without_the_painter(both):
  ours, system, _, _ = both
  theirs, own = (jax.eval_shape(one.init, jax.random.key(0)) for one in (ours, system))
  assert own == {part: theirs[part] for part in ("tokenizer", "prior")}


def test_it_draws_the_tokens_that_ours_draws_as_the_tokenizer_renders_them(both):
  ours, system, params, own = both
  tokenizer, prompts = small.text_tokenizer(), ["a large red star", "a small blue ring in the top left"]
  expected = ours.generator(params, tokenizer)(prompts, seed=3, guidance=2.0)
  generator = system.generator(own, tokenizer)
  drawing = generator(prompts, seed=3, guidance=2.0)
  np.testing.assert_array_equal(drawing.codes, expected.codes)
  np.testing.assert_allclose(drawing.images, expected.rendering, atol=1e-5)
  assert drawing.rendering is None
  images = compared.batch(ours.settings)["images"][:2, 0]
  again = generator.repaint(prompts, generator.encode(images))
  np.testing.assert_allclose(again.images, generator.reconstruct(images), atol=1e-5)
