"""The device mesh: four named axes, and where the rows of a batch lie on them."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from omniimage.settings import MeshSettings, SettingsError, require

axes = ("data", "fsdp", "tensor", "sequence")
batch_axes = ("data", "fsdp")  # the rows of a batch lie over these


def make_mesh(settings: MeshSettings, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """The devices (all of them by default) as a (data, fsdp, tensor, sequence) mesh; `data` is what spans slices."""
  devices = list(jax.devices() if devices is None else devices)
  shape = _mesh_shape(settings, len(devices))
  slices = num_slices(devices)
  if slices == 1:
    grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
  else:
    require(shape[0] % slices == 0, f"mesh.data={shape[0]} must be a multiple of the {slices} slices it spans")
    within, across = (shape[0] // slices, *shape[1:]), (slices, 1, 1, 1)
    grid = mesh_utils.create_hybrid_device_mesh(within, across, devices, allow_split_physical_axes=True)
  return Mesh(grid, axes, axis_types=(AxisType.Auto,) * len(axes))


def num_slices(devices: Iterable[jax.Device]) -> int:
  """TPU slices, each with fast links inside, that the devices belong to; 1 where there are none."""
  return len({getattr(device, "slice_index", 0) for device in devices})


def _mesh_shape(settings: MeshSettings, devices: int) -> tuple[int, ...]:
  """The axis sizes, -1 replaced by the devices that remain."""
  shape = dataclasses.astuple(settings)
  given = " × ".join(f"{axis}={size}" for axis, size in zip(axes, shape))
  fixed = math.prod(size for size in shape if size != -1)
  if -1 in shape and devices % fixed == 0:
    return tuple(devices // fixed if size == -1 else size for size in shape)
  if -1 in shape:
    raise SettingsError(f"mesh {given}: {fixed} does not divide the {devices} devices; change the fixed axes")
  if fixed != devices:
    raise SettingsError(
      f"mesh {given} takes {fixed} devices, there are {devices}; set one axis to -1 to take all that remain"
    )
  return shape


def batch_ways(mesh: Mesh) -> int:
  """How many parts the rows of a batch are split into."""
  return math.prod(mesh.shape[axis] for axis in batch_axes)


def check_rows(rows: int, accumulate: int, mesh: Mesh, name: str):
  """Raises SettingsError unless the rows of each of a step's `accumulate` microbatches divide over the mesh."""
  ways = batch_ways(mesh)
  if rows % (accumulate * ways):
    sizes = " × ".join(f"{axis}={mesh.shape[axis]}" for axis in batch_axes)
    raise SettingsError(
      f"stages.{name}.rows={rows} must be a multiple of accumulate={accumulate} × {sizes}, that is {accumulate * ways}"
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Rows, the first axis of every array of a batch, over (data, fsdp)."""
  return NamedSharding(mesh, PartitionSpec(batch_axes))


def local_rows(rows: int, sharding: NamedSharding) -> np.ndarray:
  """The rows of a global batch that this process feeds, ascending."""
  parts = sharding.addressable_devices_indices_map((rows,)).values()
  return np.unique(np.concatenate([np.arange(rows)[part] for part in parts]))


def global_batch(batch: Any, sharding: NamedSharding) -> Any:
  """A tree of numpy arrays, this process's `local_rows`, as one tree of global arrays."""
  return jax.tree.map(lambda array: jax.make_array_from_process_local_data(sharding, array), batch)
