"""Rows and columns added to the embeddings of codes: whose they are, and what they let a model tell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.data.conversation import image_tokens
from omniimage.models.grid_embedding import PAIRS
from omniimage.systems.omni_flops import step_flops
from omniimage.vocabulary import OPENING
from tests import small

ROWS, COLUMNS = 3, 2


def model(added: bool = True, **changes):
  return small.omni(small.settings(**small.SHALLOW, **{"prior.grid_embedding": added, **changes}))


def of_image(omni):
  tokens, positions = image_tokens(ROWS, COLUMNS, omni.vocabulary)
  return jnp.asarray(tokens)[None], jnp.asarray(positions)[None]


def test_codes_are_told_apart_by_row_and_column_and_nothing_else_changes():
  omni = model()
  params = omni.view(small.params(omni))["prior"]
  tokens, positions = of_image(omni)
  added = omni.prior.apply({"params": params}, positions, method=lambda prior, given: prior.grid(given))[0]
  at_codes = np.asarray(added)[OPENING : OPENING + ROWS * COLUMNS]
  apart = np.linalg.norm(at_codes[:, None] - at_codes, axis=-1) + np.eye(len(at_codes))
  assert apart.min() > 0.1
  later = omni.prior.apply({"params": params}, positions + 7, method=lambda prior, given: prior.grid(given))[0]
  np.testing.assert_array_equal(later, added)  # counted from the image, wherever it stands

  def states(grid, tokens):
    given = {**params, "grid": grid}
    return np.asarray(omni.hidden({"prior": given}, tokens, positions, jnp.ones(tokens.shape, jnp.int32)))

  none = jax.tree.map(jnp.zeros_like, params["grid"])
  words = jnp.where(tokens >= omni.vocabulary.codes, 5, tokens)
  np.testing.assert_array_equal(states(params["grid"], words), states(none, words))
  differs = np.abs(states(params["grid"], tokens) - states(none, tokens)).max(-1)[0] > 0
  assert not differs[:OPENING].any() and differs[OPENING:].all()


def test_what_is_said_after_an_image_teaches_it():
  omni = model()
  params = omni.view(small.params(omni))["prior"]
  tokens, positions = of_image(omni)

  def said(grid):
    hidden = omni.hidden({"prior": {**params, "grid": grid}}, tokens, positions, jnp.ones(tokens.shape, jnp.int32))
    return hidden[0, -1, 0]

  assert np.abs(jax.grad(said)(params["grid"])["out"]["kernel"]).max() > 1e-4


def test_without_it_no_parameter_is_another():
  fresh = {added: model(added).init(jax.random.key(0))["prior"] for added in (False, True)}
  assert set(fresh[True].pop("grid")) == {"out"} and "grid" not in fresh[False]
  jax.tree.map(np.testing.assert_array_equal, fresh[True], fresh[False])


@pytest.mark.parametrize("tied, gemma", [(False, False), (True, False), (True, True)])
def test_it_begins_smaller_than_the_embeddings_and_not_much(tied, gemma):
  omni = model(**{"prior.tied_head": tied, "prior.gemma": gemma, "prior.width": 256})
  params = omni.init(jax.random.key(0))["prior"]
  added = omni.prior.apply(
    {"params": params}, jnp.arange(32 * 3).reshape(32, 3) % 17, method=lambda prior, given: prior.grid(given)
  )
  embedded = params["embed"]["image"] * (16.0 if gemma else 1.0)
  assert 0.5 < np.std(added) / np.std(embedded) < 1


def test_it_is_counted_where_codes_are():
  s, without = (model(added).settings for added in (True, False))
  stage, size = s.stages["prior"], s.buckets[0]
  more = step_flops(s, stage, 512, size) - step_flops(without, stage, 512, size)
  assert more == 3 * stage.rows * s.data.images_per_row * size.tokens * 2 * (2 * PAIRS) * s.prior.width
