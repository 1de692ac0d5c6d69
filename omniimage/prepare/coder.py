"""Images to codes, on all devices of this machine, in batches of one shape a size.

Axes: H × W pixels, h × w codes.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from omniimage.size import Size
from omniimage.systems.system import Params, System

MOST_IMAGES = 64  # of a device at a time
MOST_PIXELS = 2**22  # likewise
IN_FLIGHT = 2  # batches that the devices have, while the next is read

Take = Callable[[np.ndarray], None]  # what is done with an image's codes (h, w) int32


class Coder:
  """Takes images one by one, and gives the codes of each to who wants them, later."""

  def __init__(self, system: System, params: Params, sizes: Sequence[Size]):
    devices = jax.local_devices()
    mesh = Mesh(np.array(devices), ("data",))
    everywhere, by_images = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    self._params = jax.device_put({system.encoder: params[system.encoder]}, everywhere)
    self._encode = jax.jit(system.encode, in_shardings=(everywhere, by_images), out_shardings=by_images)
    self._sizes = tuple(sizes)
    self._full = [len(devices) * max(1, min(MOST_IMAGES, MOST_PIXELS // math.prod(size.pixels))) for size in sizes]
    self._waiting: list[list[tuple[np.ndarray, Take]]] = [[] for _ in sizes]
    self._coming: deque[tuple[Array, list[Take]]] = deque()

  def put(self, bucket: int, image: np.ndarray, take: Take):
    """An image (H, W, 3) uint8 of the size of a bucket."""
    self._waiting[bucket].append((image, take))
    if len(self._waiting[bucket]) == self._full[bucket]:
      self._send(bucket)

  def finish(self):
    """Returns once all codes have been given."""
    for bucket, waiting in enumerate(self._waiting):
      if waiting:
        self._send(bucket)
    while self._coming:
      self._receive()

  def _send(self, bucket: int):
    waiting, self._waiting[bucket] = self._waiting[bucket], []
    batch = np.zeros((self._full[bucket], *self._sizes[bucket].pixels, 3), np.uint8)  # one shape: the rest is black
    for place, (image, _) in zip(batch, waiting):
      place[...] = image
    self._coming.append((self._encode(self._params, batch), [take for _, take in waiting]))
    if len(self._coming) > IN_FLIGHT:
      self._receive()

  def _receive(self):
    codes, takers = self._coming.popleft()
    for own, take in zip(np.asarray(codes), takers):
      take(own)
