import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.sampling import kernels


def _params(dtype):
  """Of one layer of a prior of width 6, 2 heads of 3 and 5 codes."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)  # noqa: E731
  attention = {"query": {"kernel": draw(6, 2, 3), "bias": draw(2, 3)}, "out": {"kernel": draw(2, 3, 6)}}
  layer = {"attention": attention, "mlp": {"up": {"kernel": draw(6, 8)}}, "mlp_norm": {"scale": draw(6)}}
  return {
    "prior": {"layers_0": layer, "embed": {"image": draw(5, 6)}, "head": {"image": draw(6, 5)}},
    "decoder": draw(2),
  }


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("rows", [1, kernels.FEW, kernels.FEW + 1])
def test_inside_the_loop_the_parameters_are_what_they_were(rows, dtype):
  params = _params(dtype)
  inside = jax.jit(lambda params: kernels.arranged(params, rows)())(params)
  jax.tree.map(np.testing.assert_array_equal, inside, params)


def test_matrices_of_many_rows_and_of_bfloat16_are_kept_by_their_outputs():
  turned = lambda rows, dtype: [  # noqa: E731
    eqn for eqn in jax.make_jaxpr(lambda p: kernels.arranged(p, rows)())(_params(dtype)).eqns if "transpose" in str(eqn)
  ]
  assert not turned(kernels.FEW, jnp.float32)
  # Of query, out, up and the head, there and back; no norm, bias or embedding.
  assert len(turned(kernels.FEW + 1, jnp.float32)) == len(turned(1, jnp.bfloat16)) == 8


def test_no_matrix_is_rearranged_in_a_step():
  """What is turned back inside the loop is part of the products, not a copy of its own."""
  params, rows = _params(jnp.float32), 16

  def draw(params, x):
    given = kernels.arranged(params, rows)

    def step(x, _):
      layer = given()["prior"]["layers_0"]
      heads = jnp.einsum("bd,dhk->bhk", x, layer["attention"]["query"]["kernel"])
      x = jnp.einsum("bhk,hkd->bd", heads, layer["attention"]["out"]["kernel"])
      return jnp.tanh(x), None

    return jax.lax.scan(step, x, None, length=9)[0]

  compiled = jax.jit(draw).lower(params, jnp.ones((rows, 6))).compile().as_text()
  assert not [line for line in compiled.splitlines() if re.search(r" (copy|transpose)\(.*while/body", line)]
