"""Features of input images: where they enter the prior, and as what they are made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.models.adapter import READ
from omniimage.models.omni import place_features
from omniimage.settings import INPUT_IMAGES, SettingsError
from tests import small

HERE = 3  # of six places, the one of an input image


def settings(read: str, **changes):
  return small.settings(**small.SHALLOW, **{"prior.input_images": read, **changes})


def fresh_prior(model):
  tokens, positions = jnp.zeros((1, 2), jnp.int32), jnp.zeros((1, 2, 3), jnp.int32)
  states = jnp.zeros((1, model.settings.tokenizer.width))
  return model.prior.init(jax.random.key(0), tokens, positions, states, method="init_parameters")["params"]


def differs(model, params, tokens, others, features, other_features) -> list[bool]:
  """At which places the states differ between two rows of tokens, each with the features of one place."""
  positions = jnp.repeat(jnp.arange(len(tokens))[None, :, None], 3, axis=-1)
  there = jnp.ones((1, 1), bool)

  def states(row, value):
    placed = place_features(jnp.asarray(value)[None, None, None], jnp.full((1, 1), HERE), there, len(row))
    return model.hidden(params, jnp.asarray(row)[None], positions, jnp.ones((1, len(row)), jnp.int32), placed)

  return (np.abs(states(tokens, features) - states(others, other_features)).max(axis=(0, 2)) > 0).tolist()


@pytest.mark.parametrize("read", READ)
def test_features_enter_where_they_are_given_and_after_and_codes_with_them_or_not_at_all(read):
  model = small.omni(settings(read))
  params = model.view(small.params(model))
  tokens = np.arange(6)
  tokens[HERE] = model.vocabulary.codes
  another_code = tokens + (np.arange(6) == HERE)
  one, other = np.random.default_rng(0).standard_normal((2, model.settings.prior.width)).astype(np.float32)
  before_and_after = [False] * HERE + [True] * 3
  assert differs(model, params, tokens, tokens, one, other) == before_and_after
  assert differs(model, params, tokens, another_code, one, one) == (before_and_after if read == "both" else [False] * 6)


@pytest.mark.parametrize("tied, gemma", [(False, False), (True, False), (True, True)])
def test_features_begin_about_as_large_as_what_embeddings_are_to_the_layers(tied, gemma):
  changes = {"prior.tied_head": tied, "prior.gemma": gemma, "prior.width": 256, "tokenizer.width": 128}
  model = small.omni(settings("both", **changes))
  params, states = fresh_prior(model), jax.random.normal(jax.random.key(1), (64, 128))
  features = model.prior.apply({"params": params}, states, method="adapt")
  embedded = params["embed"]["image"] * (16.0 if gemma else 1.0)
  assert 0.5 < np.std(features) / np.std(embedded) < 1


def test_without_features_no_parameter_is_another():
  fresh = {read: fresh_prior(small.omni(settings(read))) for read in INPUT_IMAGES}
  assert "adapter" not in fresh["codes"]
  for read in READ:
    adapter = fresh[read].pop("adapter")
    assert set(adapter) == {"norm", "hidden", "out"}
    jax.tree.map(np.testing.assert_array_equal, fresh[read], fresh["codes"])


def test_every_choice_but_codes_alone_has_a_way_to_be_read():
  assert set(INPUT_IMAGES) == {"codes", *READ}
  with pytest.raises(SettingsError, match=r"prior\.input_images='pixels': codes, features, both"):
    small.settings(**{"prior.input_images": "pixels"})
