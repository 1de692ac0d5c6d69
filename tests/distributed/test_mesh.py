import types

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from omniimage.distributed import mesh as mesh_lib
from omniimage.distributed.mesh import batch_sharding, check_rows, global_batch, local_rows, make_mesh
from omniimage.settings import MeshSettings, SettingsError


def test_the_axis_of_minus_one_takes_the_devices_that_remain():
  mesh = make_mesh(MeshSettings(data=-1, fsdp=2, tensor=2, sequence=1))
  assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2, "sequence": 1}
  assert mesh.axis_types == (AxisType.Auto,) * 4
  assert sorted(device.id for device in mesh.devices.flat) == list(range(8))


def test_a_mesh_can_be_made_of_some_of_the_devices():
  mesh = make_mesh(MeshSettings(data=1, fsdp=-1, tensor=1, sequence=1), jax.devices()[:2])
  assert mesh.shape["fsdp"] == 2


@pytest.mark.parametrize(
  ("sizes", "expected"),
  [((4, 1, 1, 1), "takes 4 devices, there are 8"), ((-1, 3, 1, 1), "3 does not divide the 8 devices")],
)
def test_a_mesh_of_another_size_than_the_devices_is_one_line_with_both_numbers(sizes, expected):
  with pytest.raises(SettingsError, match=expected) as error:
    make_mesh(MeshSettings(*sizes))
  assert f"data={sizes[0]} × fsdp={sizes[1]}" in str(error.value) and "\n" not in str(error.value)


def test_slices_lie_along_data_so_that_fsdp_stays_inside_one(monkeypatch):
  devices = [types.SimpleNamespace(id=i, slice_index=i % 2, platform="fake", device_kind="fake") for i in range(8)]
  monkeypatch.setattr(mesh_lib, "Mesh", lambda grid, axes, axis_types: grid)
  grid = make_mesh(MeshSettings(data=4, fsdp=2, tensor=1, sequence=1), devices)
  assert [[device.slice_index for device in row] for row in grid[:, :, 0, 0]] == [[0, 0], [0, 0], [1, 1], [1, 1]]
  with pytest.raises(SettingsError, match=r"mesh.data=1 must be a multiple of the 2 slices"):
    make_mesh(MeshSettings(data=1, fsdp=8, tensor=1, sequence=1), devices)


def test_rows_that_do_not_divide_over_the_mesh_are_named_with_their_key():
  mesh = make_mesh(MeshSettings(data=2, fsdp=2, tensor=2, sequence=1))
  check_rows(16, 4, mesh, "prior")
  with pytest.raises(SettingsError, match=r"stages.prior.rows=8 .* accumulate=4 × data=2 × fsdp=2, that is 16"):
    check_rows(8, 4, mesh, "prior")


def test_host_rows_become_one_global_array_over_data_and_fsdp():
  mesh = make_mesh(MeshSettings(data=2, fsdp=2, tensor=2, sequence=1))
  sharding = batch_sharding(mesh)
  assert sharding.spec == PartitionSpec(("data", "fsdp"))
  assert local_rows(8, sharding).tolist() == list(range(8))  # one process feeds them all, each once
  batch = {"tokens": np.arange(24).reshape(8, 3), "images": np.random.rand(8, 2, 4, 4, 3).astype(np.float32)}
  placed = global_batch(batch, sharding)
  for name, array in placed.items():
    assert array.sharding == sharding and array.addressable_shards[0].data.shape[0] == 2
    np.testing.assert_array_equal(array, batch[name])
