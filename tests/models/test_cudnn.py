"""cuDNN's kernel is the plain product: the same call by XLA gives its values and gradients, on every pattern that
models use, and what is lowered for a GPU is the kernel, with the mask that was meant."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.distributed.attention import sharded_cudnn
from omniimage.distributed.mesh import make_mesh
from omniimage.models.attention import AttentionMask, Causal, Full, dot_product_attention
from omniimage.models.chunks import ChunkLayout, DoubledChunks
from omniimage.models.cudnn import cudnn_attention, fits
from omniimage.settings import MeshSettings
from tests import for_cuda
from tests.for_cuda import BACKWARD, FORWARD, MASKED, MASKED_BACKWARD, cudnn  # noqa: F401  # a fixture

LAYOUT = ChunkLayout(6, 8, 2, 1)
PATTERNS = {  # pattern, queries, keys
  "causal": (Causal(), 64, 64),
  "causal, odd": (Causal(), 51, 51),
  "causal, more keys": (Causal(), 24, 51),
  "doubled chunks": (DoubledChunks(LAYOUT), LAYOUT.finished + 48, LAYOUT.finished + 48),
  "doubled chunks, near ones": (DoubledChunks(LAYOUT, 2), LAYOUT.finished + 48, LAYOUT.finished + 48),
  "one chunk": (DoubledChunks(ChunkLayout(6, 8, 0)), 48, 48),
  "cross": (Full(), 48, 53),
}
by_xla = functools.partial(cudnn_attention, implementation="xla")


def operands(T: int, S: int, batch: int = 2, heads: int = 4, kv_heads: int = 2, width: int = 32):
  rng = np.random.default_rng(0)
  of_queries, of_keys = (batch, T, heads, width), (batch, S, kv_heads, width)
  return [jnp.asarray(rng.standard_normal(shape), jnp.bfloat16) for shape in (of_queries, of_keys, of_keys, of_queries)]


def segments(T: int, S: int, batch: int = 2):
  """Two segments a row, other borders in each; every query sees a key."""
  border = 11 + 9 * np.arange(batch)[:, None]
  return tuple(jnp.asarray(np.arange(length) >= border, jnp.int32) for length in (T, S))


def agree(attention_fn, mask, q, k, v, cotangent):
  """Values and gradients are those of the plain product in float32, as well as bfloat16 can say them."""

  def run(fn, q, k, v, cotangent):
    out, pullback = jax.vjp(lambda q, k, v: fn(q, k, v, mask), q, k, v)
    return out, *pullback(cotangent)

  @jax.jit
  def both(*given):
    return run(attention_fn, *given), run(dot_product_attention, *(x.astype(jnp.float32) for x in given))

  for ours, plain in zip(*both(q, k, v, cotangent)):
    assert ours.dtype == jnp.bfloat16 and ours.shape == plain.shape
    np.testing.assert_allclose(ours.astype(jnp.float32), plain, rtol=0, atol=0.015 * np.abs(plain).max())


@pytest.mark.parametrize("packed", [False, True], ids=["whole", "packed"])
@pytest.mark.parametrize("name", PATTERNS)
def test_the_call_equals_the_plain_product(name, packed):
  pattern, T, S = PATTERNS[name]
  if packed and isinstance(pattern, DoubledChunks):
    pytest.skip("images are not packed")
  agree(by_xla, AttentionMask(pattern, *(segments(T, S) if packed else ())), *operands(T, S))


def test_a_hidden_key_does_not_matter():
  mask = AttentionMask(Causal(), *segments(51, 51))
  q, k, v, _ = operands(51, 51)
  changed, before = (by_xla(q, k, values, mask).astype(jnp.float32) for values in (v.at[:, 45].set(1e3), v))
  np.testing.assert_array_equal(changed[:, :45], before[:, :45])
  assert np.abs(changed[:, 45:] - before[:, 45:]).max() > 1


@pytest.mark.parametrize("shape", [(2, 1, 2, 2), (1, 2, 1, 4), (2, 2, 2, 1)], ids=str)
@pytest.mark.parametrize("name", ["causal", "doubled chunks", "cross"])
def test_the_call_divided_over_a_mesh_equals_the_plain_product(name, shape):
  pattern, T, S = PATTERNS[name]
  mesh = make_mesh(MeshSettings(*shape))
  packed = () if isinstance(pattern, DoubledChunks) else segments(T, S, batch=4)
  with jax.set_mesh(mesh):
    agree(sharded_cudnn(mesh, implementation="xla"), AttentionMask(pattern, *packed), *operands(T, S, batch=4))


@pytest.mark.parametrize(
  "dtype, T, width", [(jnp.float32, 8, 64), (jnp.float16, 8, 64), (jnp.bfloat16, 1, 64), (jnp.bfloat16, 8, 256),
                      (jnp.bfloat16, 8, 60)]
)  # fmt: skip
def test_what_the_kernel_does_not_take_is_the_plain_products(dtype, T, width):
  q, k = jnp.ones((2, T, 4, width), dtype), jnp.ones((2, 8, 2, width), dtype)
  assert not fits(q, k, k)
  np.testing.assert_array_equal(
    cudnn_attention(q, k, k, AttentionMask()), dot_product_attention(q, k, k, AttentionMask())
  )


@functools.cache
def program(name: str, packed: bool):
  pattern, T, S = PATTERNS[name]
  q, k, v, _ = operands(T, S)

  def loss(q, k, v, segments):
    return jnp.sum(cudnn_attention(q, k, v, AttentionMask(pattern, *segments)).astype(jnp.float32))

  return for_cuda.exported(jax.jit(jax.grad(loss, (0, 1, 2))), q, k, v, segments(T, S) if packed else ())


@pytest.mark.parametrize(
  "name, packed, masked, by_itself",
  [
    ("causal", False, False, "CAUSAL"),
    ("causal, odd", False, False, "CAUSAL"),
    ("causal, odd", True, True, "CAUSAL"),
    ("causal, more keys", False, True, "NO_MASK"),  # cuDNN would count from the first key
    ("doubled chunks", False, True, "NO_MASK"),
    ("one chunk", False, False, "NO_MASK"),
    ("cross", False, False, "PADDING"),  # 53 keys of 56
    ("cross", True, True, "NO_MASK"),
  ],
)
def test_on_a_gpu_it_is_cudnns_kernel_forward_and_backward(cudnn, name, packed, masked, by_itself):  # noqa: F811
  found = program(name, packed)
  assert for_cuda.kernels(found) == dict.fromkeys((MASKED, MASKED_BACKWARD) if masked else (FORWARD, BACKWARD), 1)
  text = found.mlir_module()
  assert re.findall(r"mask_type\\22: \\22(\w+)\\22", text) == [by_itself] * 2
  assert "exponential" not in text, "no softmax beside the kernel's"


def test_a_mask_is_one_for_all_heads(cudnn):  # noqa: F811
  assert "tensor<2x1x48x56xbf16>" in program("cross", True).mlir_module()
