"""Which kernels suit the devices of a mesh."""

import jax
from jax.sharding import Mesh

from omniimage.distributed.attention import attention_for
from omniimage.models.kernels import Kernels, merged_rows


def kernels_for(mesh: Mesh, own_rows: bool) -> Kernels:
  """`own_rows`: called under `shard_map`, on a device's rows."""
  merges = mesh.devices.flat[0].platform == "cpu" and mesh.shape["sequence"] == 1  # a merged axis cannot be cut twice
  return Kernels(attention_for(mesh, own_rows), merged_rows if merges else jax.lax.dot_general)
