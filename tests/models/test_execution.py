import jax
import numpy as np

from omniimage.models.execution import stack_layers, unstack_layers
from tests import small


def test_scanned_and_unrolled_layers_are_the_same_model():
  s = small.settings()
  scanned, unrolled = small.omni(s, scan=True), small.omni(s, scan=False)
  params, batch = small.params(scanned), small.batch(s)
  args = (batch["tokens"], batch["positions"], batch["segments"])
  np.testing.assert_allclose(
    scanned.hidden(params, *args), unrolled.hidden(unrolled.view(params), *args), rtol=1e-5, atol=1e-5
  )
  restacked = stack_layers(unstack_layers(params))
  jax.tree.map(np.testing.assert_array_equal, restacked, params)


def test_gather_params_sees_the_parameters_of_one_layer_and_changes_nothing_by_default():
  s = small.settings()
  seen = []

  class Gather:
    def layer(self, part, params):
      seen.append((part, params["mlp"]["down"]["kernel"].shape))
      return jax.tree.map(lambda x: x * 1.0, params)

    def rest(self, part, params):
      seen.append((part, params["layers"]["mlp"]["down"]["kernel"].shape if part == "prior" else None))
      return params

  plain, gathered = small.omni(s, scan=True), small.omni(s, scan=True, gather_params=Gather())
  params, batch = small.params(plain), small.batch(s)
  assert jax.tree.structure(jax.eval_shape(gathered.init, jax.random.key(0))) == jax.tree.structure(params)
  args = (batch["tokens"], batch["positions"], batch["segments"])
  np.testing.assert_allclose(
    gathered.hidden(gathered.view(params), *args), plain.hidden(params, *args), rtol=1e-6, atol=1e-6
  )
  assert {("prior", (64, 32)), ("prior", (s.prior.depth, 64, 32)), ("decoder", None)} <= set(seen)
