"""Muon is Optax's, wherever its matrices are."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from omniimage.distributed.mesh import make_mesh
from omniimage.distributed.sharding import LAYER_RULES, param_specs
from omniimage.settings import MeshSettings
from omniimage.training.muon import Laid, Stack, newton_schulz, scale_by_muon_on_mesh

LAYERS, D, H, K, F = 3, 16, 8, 4, 48
KERNELS = {  # of layers: shape, summed over, come out
  "attention/query": ((LAYERS, D, H, K), (1,), (2, 3)),
  "attention/out": ((LAYERS, H, K, D), (1, 2), (3,)),
  "mlp/gate": ((LAYERS, D, F), (1,), (2,)),
  "mlp/down": ((LAYERS, F, D), (1,), (2,)),
}
MESHES = [(8, 1, 1, 1), (1, 8, 1, 1), (2, 4, 1, 1), (2, 2, 2, 1), (1, 2, 2, 2), (1, 1, 8, 1), (4, 1, 1, 2)]


def a_tree(leaf):
  """{layers: {attention, mlp: {name: {kernel}}}} of what `leaf` makes of a kernel's row."""
  tree = {}
  for name, row in KERNELS.items():
    group, kernel = name.split("/")
    tree.setdefault(group, {})[kernel] = {"kernel": leaf(*row)}
  return {"layers": tree}


@pytest.fixture(scope="module")
def gradients():
  r = np.random.default_rng(0)
  return [a_tree(lambda shape, *_: jnp.asarray(r.normal(size=shape), jnp.float32)) for _ in range(2)]


def numbers(_):
  return a_tree(lambda _, summed, out: MuonDimensionNumbers(summed, out))


def two_updates(optimizer: optax.GradientTransformation, gradients, place=lambda tree: tree):
  """The second update's result and state."""
  state, update = optimizer.init(place(gradients[0])), jax.jit(optimizer.update)
  _, state = update(place(gradients[0]), state)
  return update(place(gradients[1]), state)


@pytest.fixture(scope="module")
def expected(gradients):
  return two_updates(scale_by_muon(weight_dimension_numbers=numbers), gradients)


def close(ours, theirs):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, theirs)


def test_on_one_device_updates_and_state_are_optaxs(gradients, expected):
  updates, (state, _) = two_updates(scale_by_muon_on_mesh(numbers, None), gradients)
  close(updates, expected[0])
  close(state, expected[1])


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_every_mesh_gives_the_updates_of_one_device_and_leaves_them_where_parameters_lie(gradients, expected, shape):
  mesh = make_mesh(MeshSettings(*shape))
  shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), param_specs(LAYER_RULES, "prior", gradients[0]))
  with jax.set_mesh(mesh):
    optimizer = scale_by_muon_on_mesh(numbers, Laid(LAYER_RULES, "prior", jnp.float32))
    updates, _ = two_updates(optimizer, gradients, lambda tree: jax.device_put(tree, shardings))
  close(updates, expected[0])
  assert jax.tree.all(jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), updates, shardings))


def test_slices_are_exchanged_for_matrices_and_none_is_orthogonalized_twice(gradients):
  mesh = make_mesh(MeshSettings(2, 4, 1, 1))
  specs = param_specs(LAYER_RULES, "prior", gradients[0])
  with jax.set_mesh(mesh):
    optimizer = scale_by_muon_on_mesh(numbers, Laid(LAYER_RULES, "prior", jnp.float32))
    placed = jax.device_put(gradients[0], jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs))
    state = optimizer.init(placed)
    text = jax.jit(optimizer.update).lower(placed, state).compile().as_text()
  assert "all-to-all" in text
  whole = LAYERS * 2  # matrices of each of the two shapes
  for n in (H * K, F):
    assert f"f32[{whole},{D},{n}]" not in text, "nowhere are all matrices whole"
    assert f"f32[1,{D},{n}]" in text, "eight devices, six matrices"


def test_a_device_that_slices_nothing_gets_its_share_too():
  stack = jnp.ones((6, 4, 8))
  assert P() == param_specs(((".*", P()),), "prior", {"x": stack})["x"]
  mesh = make_mesh(MeshSettings(8, 1, 1, 1))
  with jax.set_mesh(mesh):
    own = {"layers": {"x": stack}}
    optimizer = scale_by_muon_on_mesh(
      lambda _: {"layers": {"x": MuonDimensionNumbers((1,), (2,))}}, Laid(((".*", P()),), "prior", jnp.float32)
    )
    text = jax.jit(optimizer.update).lower(own, optimizer.init(own)).compile().as_text()
  assert "all-gather" in text
  assert "f32[6,4,4]" not in text, "no device squares all six"


@pytest.mark.parametrize("spec", [P("fsdp"), P(None, ("data", "fsdp")), P(None, None, None, "tensor")], ids=str)
def test_matrices_that_lie_in_other_ways_are_refused(spec):
  with pytest.raises(ValueError, match="one mesh axis a side"):
    Stack.of((3, 16, 8, 4), MuonDimensionNumbers((1,), (2, 3)), spec)


def test_singular_values_are_about_one():
  x = np.random.default_rng(0).normal(size=(4, 16, 24))
  x /= np.linalg.norm(x, axis=(1, 2), keepdims=True)
  values = np.linalg.svd(np.asarray(newton_schulz(jnp.asarray(x, jnp.float32))), compute_uv=False)
  assert values.min() > 0.6
  assert values.max() < 1.3
