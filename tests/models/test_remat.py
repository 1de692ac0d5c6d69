"""What the backward pass recomputes changes memory and time, never gradients."""

import functools
import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.models.attention import dot_product_attention
from omniimage.models.cudnn import cudnn_attention
from omniimage.models.kernels import Kernels
from omniimage.models.remat import NAMES, OFFLOADED, SAVED, tag
from omniimage.models.splash import splash_attention
from omniimage.settings import REMAT
from tests import small
from tests.for_cuda import cudnn  # noqa: F401  # a fixture


def gradients(remat: str):
  s = small.settings(remat=remat, scan_layers=True)
  system, batch = small.system(s), small.batch(s, rows=2)
  keys = jax.random.split(jax.random.key(0), 2)
  stage, total = s.stages["joint"], system.totals(batch)

  def loss(params):
    return system.losses(stage, params, batch, keys, 0, total)[0]

  return jax.jit(jax.value_and_grad(loss)), small.params(system)


@pytest.fixture(scope="module")
def all_saved():
  fn, params = gradients("none")
  return fn(params)


@pytest.mark.parametrize("remat", REMAT[1:])
def test_every_policy_gives_the_same_gradients(all_saved, remat):
  fn, params = gradients(remat)
  assert "checkpoint" in fn.lower(params).as_text(debug_info=True) or "remat" in str(fn.trace(params).jaxpr)
  for ours, expected in zip(jax.tree.leaves(fn(params)), jax.tree.leaves(all_saved)):
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


L, D, F, H, K = 24, 256, 96, 2, 128  # places, width, MLP width, heads and their width, in each part
N, T, M = 4, 16, 4 + 3 + 1  # visual tokens; the painter's patches; its memory: visual tokens, text states, one null
KERNELS = {
  "plain": dot_product_attention,
  "splash": functools.partial(splash_attention, interpret=True),
  "cudnn": cudnn_attention,
}


def saved(part: str, remat: str, kernel: str) -> Counter:
  """Shapes of what the backward pass of one layer of a part finds, parameters and all."""
  widths = {f"{name}.{key}": value for name in ("tokenizer", "prior", "decoder")
            for key, value in dict(width=D, mlp_width=F, heads=H).items()}  # fmt: skip
  s = small.settings(**small.SHALLOW, **widths, **{"prior.head_width": K, "remat": remat},
                     compute_dtype="bfloat16" if kernel == "cudnn" else "float32")  # fmt: skip
  omni = small.omni(s, kernels=Kernels(KERNELS[kernel]))
  forward = {
    "tokenizer": lambda p: omni.encode(p, jnp.zeros((1, 16, 16, 3))).features,
    "prior": lambda p: omni.hidden(p, *(jnp.zeros(x, jnp.int32) for x in ((1, L), (1, L, 3), (1, L)))),
    "decoder": lambda p: omni.decoder.apply(
      {"params": p["decoder"]}, jnp.zeros((1, 2, 2, 2)), jnp.zeros((1, M - N - 1, D)), method="init_parameters"
    ),
  }[part]
  params = jax.eval_shape(lambda key: omni.view(omni.init(key)), jax.random.key(0))
  residuals = jax.eval_shape(lambda p: jax.vjp(forward, p)[1], params)
  return Counter(x.shape for x in jax.tree.leaves(residuals))


def attended(kernel: str, places: int) -> list[tuple[int, ...]]:
  """What attention gives; splash attention's is padded to a tile, heads first, with the log-sum-exp, cuDNN's to 8."""
  longer = -(-places // 8) * 8
  return {
    "plain": [(1, places, H, K)],
    "splash": [(1, H, 128, K), (1, H, 128)],
    "cudnn": [(1, longer, H, K), (1, H, longer)],
  }[kernel]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("part", ["tokenizer", "prior", "decoder"])
def test_a_policy_saves_what_its_names_say_in_every_part_on_every_platform(part, kernel, cudnn):  # noqa: F811
  places = {"tokenizer": N, "prior": L, "decoder": T}[part]
  heads, cross = [(1, places, H, K)], part == "decoder"
  shapes = {
    "attention": attended(kernel, places) * (1 + cross),
    "residual": [(1, places, D)] * (part == "prior"),
    "gate": [(1, places, F)],
    "up": [(1, places, F)],
    "query": heads * (1 + cross),
    "key": heads + [(1, M, H, K)] * cross,
    "value": heads + [(1, M, H, K)] * cross,
  }
  inputs = saved(part, "full", kernel)
  for policy, names in SAVED.items():
    assert saved(part, policy, kernel) - inputs == Counter(x for name in names for x in shapes[name]), policy


def test_policies_save_more_and_more():
  assert list(REMAT[1:-1]) == list(SAVED)[::-1]
  assert all(set(fewer) < set(more) for fewer, more in itertools.pairwise(SAVED.values()))
  assert set(OFFLOADED) < set(NAMES) == set(SAVED["projections"])


def test_a_name_that_no_policy_saves_is_refused():
  with pytest.raises(ValueError, match="no policy knows the name 'gates'"):
    tag(jnp.zeros(()), "gates")
