import jax.numpy as jnp
import numpy as np
import pytest

from tests import small


def test_a_packed_row_gives_each_conversation_what_it_gets_alone():
  s = small.settings()
  model = small.omni(s)
  params, batch = model.view(small.params(model)), small.batch(s)
  packed = model.hidden(params, batch["tokens"], batch["positions"], batch["segments"])
  row = int(np.argmax(batch["segments"].max(axis=1)))
  assert batch["segments"][row].max() >= 2, "the test needs a row with two conversations"
  for segment in (1, 2):
    at = np.flatnonzero(batch["segments"][row] == segment)
    alone = model.hidden(params, *(batch[name][row : row + 1, at] for name in ("tokens", "positions", "segments")))
    # Positions start again from zero in each conversation, so nothing else distinguishes the two.
    np.testing.assert_allclose(packed[row, at], alone[0], rtol=1e-4, atol=1e-4)


def test_no_position_sees_the_future():
  s = small.settings()
  model = small.omni(s)
  params = model.view(small.params(model))
  tokens, positions = jnp.arange(12)[None], jnp.repeat(jnp.arange(12)[None, :, None], 3, axis=-1)
  apply = lambda tokens: model.hidden(params, tokens, positions, jnp.ones((1, 12), jnp.int32))  # noqa: E731
  changed = np.abs(apply(tokens) - apply(tokens.at[0, 7].set(500))).max(axis=(0, 2))
  assert np.all(changed[:7] == 0) and np.all(changed[7:] > 0)


@pytest.mark.parametrize("variant", [{}, {"prior.tied_head": True}, {"prior.qkv_bias": True, "prior.qk_norm": False}])
def test_logits_cover_each_kind_of_id_without_its_padding(variant):
  s = small.settings(**variant)
  model = small.omni(s)
  params = model.view(small.params(model))
  hidden = jnp.ones((3, s.prior.width))
  for kind, ids in (("text", model.vocabulary.text_and_specials), ("image", s.tokenizer.codes)):
    logits = model.prior.apply({"params": params["prior"]}, hidden, kind, method="logits")
    assert logits.shape == (3, ids) and logits.dtype == jnp.float32
    assert model.head(params, kind).shape[1] % 128 == 0
  assert ("head" in params["prior"]) != s.prior.tied_head
