"""Gathering by hand: what leaves a device, and what comes back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from omniimage.distributed.fsdp import gather, scatter_at_once, scatter_by_halves
from omniimage.distributed.mesh import make_mesh
from omniimage.settings import MeshSettings


def over_fsdp(fn, ways: int, in_specs, out_specs):
  mesh = make_mesh(MeshSettings(8 // ways, ways, 1, 1))
  return jax.jit(jax.shard_map(fn, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False))


@pytest.mark.parametrize("ways", [1, 2, 4, 8])
@pytest.mark.parametrize("scatter", [scatter_at_once, scatter_by_halves])
def test_each_device_gets_its_slice_of_the_sum(scatter, ways):
  of_devices = np.random.default_rng(0).standard_normal((ways, 16, 3)).astype(np.float32)
  scattered = over_fsdp(lambda x: scatter(x[0]), ways, P("fsdp"), P("fsdp"))(of_devices)
  np.testing.assert_allclose(scattered, of_devices.sum(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("slices", "dimension"), [(1, 0), (1, 1), (2, 0)])
def test_a_gathered_parameter_is_whole_and_its_gradient_the_sum_over_all_devices(slices, dimension):
  param = np.random.default_rng(1).standard_normal((8, 8)).astype(np.float32)
  per_device = np.random.default_rng(2).standard_normal((8, 8, 8)).astype(np.float32)
  spec = P(*(("fsdp", None) if dimension == 0 else (None, "fsdp")))

  def local(shard, weights):
    def loss(shard):
      return jnp.sum(gather(shard, dimension, jnp.float32, scatter_by_halves, slices) * weights[0])

    return jax.grad(loss)(shard)

  gradient = over_fsdp(local, 2, (spec, P(("data", "fsdp"))), spec)(param, per_device)
  np.testing.assert_allclose(gradient, per_device.sum(0), rtol=1e-5, atol=1e-5)
  whole = over_fsdp(lambda x: gather(x, dimension, jnp.float32, scatter_at_once, slices), 2, spec, P())(param)
  np.testing.assert_array_equal(whole, param)


def test_parameters_travel_in_the_compute_type():
  spec = P("fsdp", None)
  whole = over_fsdp(lambda x: gather(x, 0, jnp.bfloat16, scatter_at_once, 1), 8, spec, P())
  jaxpr = str(jax.make_jaxpr(whole)(jnp.zeros((8, 8))))
  gathered = next(line for line in jaxpr.splitlines() if "all_gather[" in line)
  assert "bf16[8,8]" in gathered, gathered
