"""Copies of a state in host memory that is kept from save to save."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jax import Array

from omniimage.manifests import THREADS

Place = tuple[str, str]  # path of an array, index of its shard


class HostMemory:
  """What `save` copies arrays on CPU devices into.

  Their memory Orbax would read in place, while it writes. A step that donates them meanwhile would have XLA copy them,
  in one thread and small pages: several times slower than to copy them here. New memory costs more yet; so it is kept.
  That makes no higher peak, as steps run while a checkpoint is written.
  """

  def __init__(self):
    self._memory: dict[Place, np.ndarray] = {}

  def reserve(self, sizes: Mapping[Place, int]):
    """Makes the memory for arrays of such `sizes`."""
    for place, size in sizes.items():
      self._memory[place] = _aligned(size)
      self._memory[place].fill(0)  # only now does it exist

  def clear(self):
    self._memory.clear()

  def copies(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Copies of those that are on CPU devices."""
    arrays, used = _on_host(arrays), set()

    def copied(path: str, array: Array) -> Array:
      own = []
      for shard in array.addressable_shards:
        values, place = np.asarray(shard.data), (path, str(shard.index))
        if place not in self._memory or self._memory[place].nbytes != values.nbytes:
          self._memory[place] = _aligned(values.nbytes)
        copy = self._memory[place].view(values.dtype).reshape(values.shape)
        if place not in used:  # replicas share their copy
          np.copyto(copy, values)
        used.add(place)
        own.append(jax.device_put(copy, shard.device))
      return jax.make_array_from_single_device_arrays(array.shape, array.sharding, own)

    with ThreadPoolExecutor(THREADS) as pool:
      copies = dict(zip(arrays, pool.map(copied, arrays.keys(), arrays.values())))
    for place in self._memory.keys() - used:
      del self._memory[place]
    return copies


def sizes(arrays: Mapping[str, Array]) -> dict[Place, int]:
  """Bytes of each shard that `HostMemory.copies` would copy."""
  return {(path, str(s.index)): s.data.nbytes for path, x in _on_host(arrays).items() for s in x.addressable_shards}


def _on_host(arrays: Mapping[str, Array]) -> dict[str, Array]:
  arrays = {path: leaf for path, leaf in arrays.items() if isinstance(leaf, Array)}
  return {path: array for path, array in arrays.items() if {d.platform for d in array.devices()} == {"cpu"}}


def _aligned(size: int, alignment: int = 64) -> np.ndarray:
  """Memory that a CPU device takes over as it is."""
  memory = np.empty(size + alignment, np.uint8)
  start = -memory.ctypes.data % alignment
  return memory[start : start + size]
