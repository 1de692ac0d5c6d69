"""Products with their axes merged are the plain ones, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.models.kernels import merged_rows

SHAPES = {  # activations, matrix, how many axes are summed over
  "dense": ((2, 3, 4), (4, 5), 1),
  "into heads": ((2, 3, 4), (4, 5, 6), 1),
  "from heads": ((2, 3, 5, 6), (5, 6, 4), 2),
  "one row": ((4,), (4, 5), 1),
  "no rows": ((2, 0, 4), (4, 5), 1),
}


@pytest.mark.parametrize("case", SHAPES)
def test_merged_rows_are_the_plain_product_and_its_gradients(case):
  of_x, of_kernel, summed = SHAPES[case]
  r = np.random.default_rng(0)
  x, kernel = (jnp.asarray(r.normal(size=shape), jnp.float32) for shape in (of_x, of_kernel))
  numbers = (tuple(range(len(of_x) - summed, len(of_x))), tuple(range(summed))), ((), ())
  cotangent = jnp.asarray(r.normal(size=(*of_x[: len(of_x) - summed], *of_kernel[summed:])), jnp.float32)

  def product_and_gradients(dot_general):
    y, back = jax.vjp(lambda x, kernel: dot_general(x, kernel, numbers), x, kernel)
    return y, *back(cotangent)

  for own, plain in zip(product_and_gradients(merged_rows), product_and_gradients(jax.lax.dot_general), strict=True):
    assert own.shape == plain.shape
    np.testing.assert_allclose(own, plain, rtol=1e-5, atol=1e-6)


def test_no_gradient_sums_over_two_axes_of_rows():
  x, kernel = jnp.ones((2, 3, 4)), jnp.ones((4, 5))
  numbers = ((2,), (0,)), ((), ())
  loss = jax.grad(lambda kernel: merged_rows(x, kernel, numbers).sum())
  dots = [e for e in jax.make_jaxpr(loss)(kernel).eqns if e.primitive.name == "dot_general"]
  assert dots
  assert all(v.aval.ndim == 2 for e in dots for v in e.invars)
