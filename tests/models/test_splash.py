"""The TPU kernel, interpreted, is the plain product: values and gradients, on every pattern that models use."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.distributed.attention import sharded_splash
from omniimage.distributed.mesh import make_mesh
from omniimage.models.attention import AttentionMask, Causal, Full, dot_product_attention
from omniimage.models.chunks import ChunkLayout, DoubledChunks
from omniimage.models.splash import splash_attention
from omniimage.settings import MeshSettings

LAYOUT = ChunkLayout(8, 16, 2, 1)
PATTERNS = {  # pattern, queries, keys
  "causal": (Causal(), 256, 256),
  "causal, padded": (Causal(), 200, 200),
  "doubled chunks": (DoubledChunks(LAYOUT), LAYOUT.finished + 128, LAYOUT.finished + 128),
  "doubled chunks, near ones": (DoubledChunks(LAYOUT, 2), LAYOUT.finished + 128, LAYOUT.finished + 128),
  "cross": (Full(), 128, 150),
}
interpreted = functools.partial(splash_attention, interpret=True)


def operands(T: int, S: int, batch: int = 2, heads: int = 4, kv_heads: int = 2):
  rng = np.random.default_rng(0)
  shapes = (batch, T, heads, 128), (batch, S, kv_heads, 128), (batch, S, kv_heads, 128), (batch, T, heads, 128)
  return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


def segments(T: int, S: int, batch: int = 2):
  """Two segments a row, other borders in each; every query sees a key."""
  border = 40 + 30 * np.arange(batch)[:, None]
  return tuple(jnp.asarray(np.arange(length) >= border, jnp.int32) for length in (T, S))


def agree(attention_fn, mask, q, k, v, cotangent):
  """Both give the same values and gradients."""

  def run(fn):
    out, pullback = jax.vjp(lambda q, k, v: fn(q, k, v, mask), q, k, v)
    return out, *pullback(cotangent)

  for ours, plain in zip(jax.jit(run, static_argnums=0)(attention_fn), run(dot_product_attention)):
    np.testing.assert_allclose(ours, plain, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("packed", [False, True], ids=["whole", "packed"])
@pytest.mark.parametrize("name", PATTERNS)
def test_the_kernel_equals_the_plain_product(name, packed):
  pattern, T, S = PATTERNS[name]
  if packed and isinstance(pattern, DoubledChunks):
    pytest.skip("images are not packed")
  agree(interpreted, AttentionMask(pattern, *(segments(T, S) if packed else ())), *operands(T, S))


def test_a_hidden_key_does_not_matter():
  mask = AttentionMask(Causal(), *segments(256, 256))
  q, k, v, _ = operands(256, 256)
  changed = interpreted(q, k, v.at[:, 200].set(1e3), mask)
  before = interpreted(q, k, v, mask)
  np.testing.assert_array_equal(changed[:, :200], before[:, :200])
  assert np.abs(changed[:, 200:] - before[:, 200:]).max() > 1


@pytest.mark.parametrize("shape", [(2, 1, 2, 2), (1, 2, 1, 4), (1, 1, 2, 4)], ids=str)
@pytest.mark.parametrize("name", ["causal", "cross"])
def test_the_kernel_divided_over_a_mesh_equals_the_plain_product(name, shape):
  pattern, T, S = PATTERNS[name][0], 512, 640
  S = T if name == "causal" else S
  mesh = make_mesh(MeshSettings(*shape))
  with jax.set_mesh(mesh):
    agree(sharded_splash(mesh, interpret=True), AttentionMask(pattern, *segments(T, S)), *operands(T, S))
