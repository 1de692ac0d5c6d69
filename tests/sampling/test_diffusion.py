import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.models.attention import AttentionMask
from omniimage.models.chunks import DoubledChunks
from omniimage.models.flow import velocity
from omniimage.models.layers import patchify, unpatchify
from omniimage.sampling.diffusion import branches, paint
from omniimage.streams import Stream, fold
from tests import small

B, S = 2, 5


def _conditions(s, rows=2, columns=2):
  keys = jax.random.split(jax.random.key(0), 3)
  features = jax.random.uniform(keys[0], (B, rows, columns, len(s.tokenizer.levels)), minval=-1)
  return features, jax.random.normal(keys[1], (B, S, s.prior.width)), jnp.arange(S) >= jnp.asarray([[0], [3]])


def _uncached(model, params, conditions, keys, sampling):
  """Paints by the doubled forward pass of training, on a canvas of what is finished so far; nothing is kept."""
  s, grid = model.settings.decoder, conditions[0].shape[1:3]
  layout = model.layout(*grid, sampling.chunk_rows, 0, sampling.chunk_columns)
  N = layout.rows * layout.columns
  clean = jnp.zeros((B, N, 3 * s.patch_size**2))
  variables = {"params": params["decoder"]}
  mask, spans = AttentionMask(DoubledChunks(layout, s.context_rows)), ((0, layout.finished_groups), (0, layout.groups))

  @jax.jit
  def predict(clean, noisy, t, keep_tokens, keep_text):
    keep = [jnp.full((B,), keep) for keep in (keep_tokens, keep_text)]
    memory = model.decoder.apply(variables, *conditions, *keep, layout, method="remember")
    patches = jnp.concatenate([clean[:, : layout.finished], noisy], axis=1)
    times = jnp.concatenate([jnp.ones((B, layout.finished_groups)), jnp.full((B, layout.groups), t)], axis=1)
    return model.decoder.apply(variables, patches, spans, times, memory, mask, layout)[0][:, layout.finished :]

  for chunk in range(layout.count):
    T = N // layout.count
    own, shape = slice(chunk * T, (chunk + 1) * T), (T, clean.shape[-1])
    x = jax.vmap(lambda key, c=chunk, shape=shape: jax.random.normal(fold(key, Stream.CHUNKS, c), shape))(keys)
    for i in range(sampling.diffusion_steps):
      t = i / sampling.diffusion_steps
      canvas = clean.at[:, own].set(x)
      predicted = sum(w * predict(clean, canvas, t, *keep) for *keep, w in branches(sampling))[:, own]
      x = predicted if i == sampling.diffusion_steps - 1 else x + velocity(predicted, x, t) / sampling.diffusion_steps
    clean = clean.at[:, own].set(x)
  return unpatchify(layout.raster(clean), s.patch_size, layout.columns)


@pytest.mark.parametrize(
  "tokens, chunk, context_rows, guidance",
  [
    ((2, 2), (1, 0), 0, (1.0, 1.0)),
    ((2, 2), (2, 0), 0, (1.0, 1.0)),
    ((2, 2), (2, 0), 0, (2.0, 1.0)),
    ((2, 2), (2, 0), 0, (1.5, 3.0)),
    ((2, 2), (1, 0), 2, (1.0, 1.0)),
    ((2, 2), (0, 0), 0, (1.0, 1.0)),
    ((2, 3), (1, 0), 2, (1.0, 1.0)),
    ((3, 1), (2, 0), 0, (1.5, 1.0)),
    ((2, 3), (2, 2), 0, (1.5, 1.0)),
    ((4, 2), (2, 2), 1, (1.0, 1.0)),
  ],
)
def test_cached_sampling_equals_uncached(tokens, chunk, context_rows, guidance):
  s = small.settings(**{"decoder.context_rows": context_rows})
  model = small.omni(s, scan=False)
  params = model.view(small.params(model))
  sampling = dataclasses.replace(
    s.sampling,
    chunk_rows=chunk[0],
    chunk_columns=chunk[1],
    token_guidance=guidance[0],
    text_guidance=guidance[1],
  )
  keys = jax.random.split(jax.random.key(1), B)
  conditions = _conditions(s, *tokens)
  cached = jax.jit(lambda *args: paint(model, params, *args, sampling))(*conditions, keys)
  assert cached.shape == (B, 8 * tokens[0], 8 * tokens[1], 3)
  np.testing.assert_allclose(
    cached, _uncached(model, params, conditions, keys, sampling), rtol=2e-3, atol=2e-3 * float(jnp.abs(cached).max())
  )


def test_a_noisy_chunk_is_painted_without_its_own_clean_copy_or_anything_below():
  s = small.settings()
  model = small.omni(s, scan=False)
  params, layout = model.view(small.params(model)), model.layout(2, 2, 1)
  variables = {"params": params["decoder"]}
  keep = jnp.ones((B,), bool)
  memory = model.decoder.apply(variables, *_conditions(s), keep, keep, layout, method="remember")
  C, M = layout.columns, layout.finished
  mask, spans = AttentionMask(DoubledChunks(layout)), ((0, layout.finished_groups), (0, layout.groups))
  patches = jax.random.normal(jax.random.key(2), (1, M + layout.rows * C, 48))
  memory = jax.tree.map(lambda x: x[:1], memory)

  def predict(patches):
    t = jnp.full((1, layout.finished_groups + layout.groups), 0.5)
    return model.decoder.apply(variables, patches, spans, t, memory, mask, layout)[0][0, M:]

  # Whole-row sensitivity: which input rows, [finished | noisy], each noisy output row depends on.
  slopes = jax.jit(jax.jacobian(lambda p: predict(p).reshape(layout.rows, -1).sum(-1)))(patches)
  depends = np.asarray(jnp.abs(slopes).reshape(layout.rows, -1, C, 48).sum((2, 3)) > 0)
  rows = np.arange(layout.rows)
  np.testing.assert_array_equal(depends[:, : layout.finished_groups], rows[None, :-1] < rows[:, None])
  np.testing.assert_array_equal(depends[:, layout.finished_groups :], np.eye(layout.rows, dtype=bool))


def test_without_guidance_there_is_one_pass_and_with_both_three():
  sampling = small.settings().sampling
  assert branches(sampling) == [(True, True, 1.0)]
  tokens = branches(dataclasses.replace(sampling, token_guidance=2.0))
  assert tokens == [(True, True, 2.0), (False, True, -1.0)]
  both = branches(dataclasses.replace(sampling, token_guidance=2.0, text_guidance=3.0))
  assert len(both) == 3 and sum(weight for *_, weight in both) == pytest.approx(1.0)


def test_every_condition_changes_the_picture():
  s = small.settings()
  model = small.omni(s, scan=False)
  params, keys = model.view(small.params(model)), jax.random.split(jax.random.key(1), B)
  features, states, mask = _conditions(s)
  apply = jax.jit(lambda *args: paint(model, params, *args, keys, s.sampling))
  image = apply(features, states, mask)
  assert np.abs(apply(-features, states, mask) - image).max() > 1e-3
  assert np.abs(apply(features, -states, mask) - image).max() > 1e-3
  # A state that the mask leaves out does not matter.
  np.testing.assert_allclose(apply(features, states.at[1, 0].add(9.0), mask), image, atol=1e-5)
  assert patchify(image, s.decoder.patch_size).shape == (B, 4 * 4, 48)


def test_guidance_lasts_from_one_time_until_another():
  s = small.settings()
  model = small.omni(s, scan=False)
  params, keys, conditions = model.view(small.params(model)), jax.random.split(jax.random.key(1), B), _conditions(s)

  def painted(**changes):
    sampling = dataclasses.replace(s.sampling, diffusion_steps=4, **changes)
    return np.asarray(jax.jit(lambda *args: paint(model, params, *args, keys, sampling))(*conditions))

  both = {"token_guidance": 2.0, "text_guidance": 3.0}
  plain, guided = painted(), painted(**both)
  assert np.abs(guided - plain).max() > 1e-2
  np.testing.assert_allclose(painted(**both, guidance_from=0.8), plain, atol=1e-5, err_msg="no step is as late")
  np.testing.assert_allclose(painted(**both, guidance_until=0.99), guided, atol=1e-5, err_msg="every step is before")
  part = painted(**both, guidance_from=0.3, guidance_until=0.6)
  assert min(np.abs(part - other).max() for other in (plain, guided)) > 1e-3
  assert np.isfinite(painted(token_guidance=0.0, guidance_from=0.5)).all(), "what no guidance needs, its interval does"
