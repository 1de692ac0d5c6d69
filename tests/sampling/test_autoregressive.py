import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.sampling.autoregressive import keep_likely, prefill, sample_ids, sample_tokens
from omniimage.sampling.grammar import Grammar
from tests import small

PROMPTS = ("a red star", "a small blue circle at the bottom right and a large green ring in the top left", "a")


def _prompts(s, v):
  opening = v.opening(2, 2)
  rows = [small.text_tokenizer().encode(prompt) + opening for prompt in PROMPTS]
  lengths = np.asarray([len(row) for row in rows])
  return np.asarray([row + [v.pad] * (lengths.max() - len(row)) for row in rows], np.int32), lengths


def _logits_uncached(model, params, rows, lengths):
  """Logits over the whole vocabulary after each whole sequence, by one forward pass of the training kind."""

  def step(grammar, token):
    return grammar.advance(token, model.vocabulary), grammar.position()

  _, positions = jax.lax.scan(step, Grammar.start(rows.shape[0]), jnp.asarray(rows).T)
  segments = (np.arange(rows.shape[1]) < lengths[:, None]).astype(np.int32)
  hidden = model.hidden(params, rows, jnp.moveaxis(positions, 0, 1), segments)
  last = hidden[np.arange(len(rows)), lengths - 1]
  tables = [model.prior.apply({"params": params["prior"]}, last, kind, method="logits") for kind in ("text", "image")]
  return jnp.concatenate(tables, axis=-1)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("codes_only", [False, True])
def test_cached_sampling_equals_uncached(guidance, codes_only):
  """Greedy, rows of different length: each token is the argmax of a full forward pass over what stands before it."""
  s = small.settings(**{"prior.grid_embedding": True})  # whose places must be those of training
  model = small.omni(s, scan=False)
  params = model.view(small.params(model))
  v, (prompts, lengths) = model.vocabulary, _prompts(s, small.omni(s).vocabulary)
  B, P = prompts.shape
  new = 4 if codes_only else 4 + 6
  sampling = dataclasses.replace(s.sampling, temperature=0.0, guidance=guidance)

  bare = np.full_like(prompts, v.pad)
  bare[:, :3] = prompts[0, lengths[0] - 3 : lengths[0]]
  both, both_lengths = (prompts, lengths)
  if guidance != 1:
    both, both_lengths = np.concatenate([prompts, bare]), np.concatenate([lengths, [3] * B])
  written, _ = prefill(model, params, both, both_lengths, new)
  keys = jax.random.split(jax.random.key(0), B)
  drawn = np.asarray(sample_tokens(model, params, written, P, jnp.arange(new), keys, sampling, codes_only)[1])

  forward = jax.jit(lambda rows, lengths: _logits_uncached(model, params, rows, lengths))
  space = np.full((B, new), v.pad)

  def sequences(start, start_lengths, k):
    rows = np.concatenate([start, space], axis=1).astype(np.int32)
    for b, n in enumerate(start_lengths):
      rows[b, n : n + k] = drawn[b, :k]
    return rows, start_lengths + k

  grammar = Grammar.start(B)
  for p in range(P):
    following = grammar.advance(jnp.asarray(prompts[:, p]), v)
    grammar = jax.tree.map(lambda new, old, p=p: jnp.where(p < lengths, new, old), following, grammar)
  for k in range(new):
    logits = forward(*sequences(prompts, lengths, k))
    if guidance != 1:
      unconditional = forward(*sequences(bare, np.full(B, 3), k))
      logits = unconditional + guidance * (logits - unconditional)
    masked = np.where(grammar.allowed(v), logits, -np.inf)
    best = np.sort(masked, axis=-1)[:, ::-1]
    chosen = masked[np.arange(B), drawn[:, k]]
    np.testing.assert_allclose(chosen, best[:, 0], atol=1e-3, err_msg=f"token {k}")
    if np.all(best[:, 0] - best[:, 1] > 1e-3):
      np.testing.assert_array_equal(drawn[:, k], masked.argmax(axis=-1))
    grammar = grammar.advance(jnp.asarray(drawn[:, k]), v)


def test_a_row_draws_the_same_whoever_is_beside_it():
  s = small.settings()
  model = small.omni(s, scan=False)
  params = model.view(small.params(model))
  prompts, lengths = _prompts(s, model.vocabulary)
  keys = jax.random.split(jax.random.key(3), len(prompts))

  def drawn(rows):
    written, _ = prefill(model, params, prompts[rows], lengths[rows], 4)
    own = keys[np.asarray(rows)]
    return sample_tokens(model, params, written, prompts.shape[1], jnp.arange(4), own, s.sampling, True)[1]

  np.testing.assert_array_equal(drawn([0, 1, 2])[1:2], drawn([1]))


def test_top_k_and_top_p_keep_the_likeliest():
  logits = jnp.log(jnp.asarray([[0.1, 0.5, 0.15, 0.25]]))
  kept = lambda *args: list(np.isfinite(keep_likely(logits, *args)[0]))  # noqa: E731
  assert kept(0, 1.0) == [True] * 4
  assert kept(2, 1.0) == [False, True, False, True]
  assert kept(0, 0.4) == [False, True, False, False]
  assert kept(0, 0.6) == [False, True, False, True]
  assert kept(0, 0.76) == [False, True, True, True]
  assert kept(1, 0.99) == [False, True, False, False]


def test_min_p_keeps_what_is_a_share_of_the_likeliest():
  logits = jnp.log(jnp.asarray([[0.1, 0.5, 0.15, 0.25], [0.01, 0.01, 0.97, 0.01]]))
  kept = lambda *args: np.isfinite(keep_likely(logits, *args)).tolist()  # noqa: E731
  assert kept(0, 1.0, 0.0) == [[True] * 4] * 2
  assert kept(0, 1.0, 0.29) == [[False, True, True, True], [False, False, True, False]]
  assert kept(0, 1.0, 0.4) == [[False, True, False, True], [False, False, True, False]]
  assert kept(0, 1.0, 1.0) == [[False, True, False, False], [False, False, True, False]]
  assert kept(2, 1.0, 0.29)[0] == [False, True, False, True], "what top-k left out stays out"
  s = dataclasses.replace(small.settings().sampling, min_p=0.4)
  keys = jax.random.split(jax.random.key(0), 500)
  assert set(np.asarray(sample_ids(jnp.tile(logits[:1], (500, 1)), keys, s)).tolist()) == {1, 3}


def test_min_p_is_of_the_probabilities_that_are_drawn_from():
  """The temperature comes first, as in the paper: a hotter distribution keeps more."""
  logits = jnp.tile(jnp.log(jnp.asarray([0.9, 0.1])), (500, 1))
  keys = jax.random.split(jax.random.key(0), 500)
  for temperature, drawn in ((1.0, {0}), (4.0, {0, 1})):
    s = dataclasses.replace(small.settings().sampling, min_p=0.5, temperature=temperature)
    assert set(np.asarray(sample_ids(logits, keys, s)).tolist()) == drawn


def test_draws_follow_the_probabilities_and_the_temperature():
  s = small.settings().sampling
  logits = jnp.tile(jnp.log(jnp.asarray([0.2, 0.8])), (4000, 1))
  keys = jax.random.split(jax.random.key(0), 4000)
  assert abs(float(sample_ids(logits, keys, s).mean()) - 0.8) < 0.03
  sharper = dataclasses.replace(s, temperature=0.5)
  assert abs(float(sample_ids(logits, keys, sharper).mean()) - 0.64 / 0.68) < 0.03
  assert np.all(sample_ids(logits, keys, dataclasses.replace(s, temperature=0.0)) == 1)


@pytest.mark.parametrize("temperature", [1e-320, 1e-45, 1e-38, 1e-30, 1e-6])
@pytest.mark.parametrize("top_k, top_p, min_p", [(0, 1.0, 0.0), (2, 1.0, 0.0), (0, 0.9, 1e-30), (3, 1e-6, 1.0)])
def test_the_limit_of_small_temperatures_is_the_likeliest(temperature, top_k, top_p, min_p):
  """Also where float32 holds neither the temperature nor the logits divided by it."""
  s = dataclasses.replace(small.settings().sampling, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
  logits = np.asarray(
    [[-np.inf, -3.0, 7.5, 7.0, 0.1], [80.0, -np.inf, 0.0, 79.9, -1e4], [-9.0, -1e30, -8.9, -90.0, -np.inf]]
  )
  keys = jax.random.split(jax.random.key(0), 3)
  np.testing.assert_array_equal(sample_ids(jnp.asarray(logits, jnp.float32), keys, s), [2, 0, 2])


def test_the_likeliest_stays_however_small_top_p():
  kept = keep_likely(jnp.asarray([[0.0, 1.0, -1.0]]), 0, 1e-320)
  assert list(np.isfinite(kept[0])) == [False, True, False]
