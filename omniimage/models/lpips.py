"""LPIPS: how different two pictures look, by what a network sees in them that has learnt to tell things apart (Zhang et
al. 2018, arXiv 1801.03924).

Features of five layers, normalized over channels at every place; their squared differences, weighted by channel as
people judged them, averaged over places and added over layers. The networks are AlexNet (Krizhevsky 2014, as in
torchvision) and VGG16 (Simonyan & Zisserman 2015). They are never trained here.

Axes: F images, H × W pixels, h × w places of a layer, C its channels.
"""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of colors in [-1, 1]: ImageNet's mean and deviation
SMALLEST_NORM = 1e-10  # of features: where none is active, the root would have no gradient


@dataclasses.dataclass(frozen=True)
class Convolution:
  """And a ReLU. `pools`: a maximum over places before it; `seen`: its features are compared."""

  channels: int
  kernel: int = 3
  stride: int = 1
  padding: int = 1
  pools: bool = False
  seen: bool = True


@dataclasses.dataclass(frozen=True)
class Network:
  """A network's layers.

  Attributes:
    pool: side of the windows that are pooled, two places apart.
    least_pixels: along a side, for the deepest layer to have a place.
    deepest: what the last layer's features are called.
  """

  convolutions: tuple[Convolution, ...]
  pool: int
  least_pixels: int
  deepest: str


def _block(channels: int, layers: int, pools: bool = True) -> tuple[Convolution, ...]:
  """Layers of VGG between two poolings, of which the last is compared."""
  return tuple(Convolution(channels, pools=pools and i == 0, seen=i == layers - 1) for i in range(layers))


NETWORKS = {
  "alexnet": Network(
    (
      Convolution(64, kernel=11, stride=4, padding=2),
      Convolution(192, kernel=5, padding=2, pools=True),
      Convolution(384, pools=True),
      Convolution(256),
      Convolution(256),
    ),
    pool=3,
    least_pixels=31,
    deepest="relu5",
  ),
  "vgg16": Network(
    (*_block(64, 2, pools=False), *_block(128, 2), *_block(256, 3), *_block(512, 3), *_block(512, 3)),
    pool=2,
    least_pixels=16,
    deepest="relu5_3",
  ),
}


class PerceptualNetwork(nn.Module):
  """A network and the weights of its channels, `head_0` to `head_4`, which are not negative."""

  network: str  # of NETWORKS

  def setup(self):
    convolutions = self.described.convolutions
    self.convolutions = [
      nn.Conv(c.channels, (c.kernel, c.kernel), c.stride, c.padding, kernel_init=nn.initializers.he_normal())
      for c in convolutions
    ]
    seen = [c.channels for c in convolutions if c.seen]
    self.heads = [self.param(f"head_{i}", nn.initializers.uniform(1.0), (width,)) for i, width in enumerate(seen)]

  @property
  def described(self) -> Network:
    return NETWORKS[self.network]

  def features(self, images_FHW3: Array) -> list[Array]:
    """Of images in [-1, 1], those of the layers that are compared, each (F, h, w, C)."""
    x = (images_FHW3 - jnp.array(SHIFT)) / jnp.array(SCALE)
    pool, found = (self.described.pool, self.described.pool), []
    for c, convolution in zip(self.described.convolutions, self.convolutions):
      x = nn.relu(convolution(nn.max_pool(x, pool, (2, 2)) if c.pools else x))
      if c.seen:
        found.append(x)
    return found

  def __call__(self, images_FHW3: Array, others_FHW3: Array) -> Array:
    """(F,) distances of images and others, in [-1, 1]; 0 for the same picture."""
    total = 0.0
    for head_C, mine, other in zip(self.heads, self.features(images_FHW3), self.features(others_FHW3)):
      difference_FhwC = jnp.square(_normalized(mine) - _normalized(other))
      total += jnp.mean(difference_FhwC @ head_C, axis=(1, 2))
    return total


@dataclasses.dataclass(frozen=True, eq=False)
class Lpips:
  """A network with its weights, which are part of what is compiled and no parameters of anything.

  Images that it cannot read, of fewer than `least_pixels` a side, are enlarged by a whole factor.
  """

  network: str
  params: Mapping

  def __call__(self, images_FHW3: Array, others_FHW3: Array) -> Array:
    """(F,) distances of images and others, in [-1, 1]. Those of images that are cut into rows are the same."""
    return self._module.apply(self._variables, self._readable(images_FHW3), self._readable(others_FHW3))

  def features(self, images_FHW3: Array) -> Array:
    """(F, C) of images in [-1, 1]: those of the deepest layer, averaged over places."""
    return jnp.mean(
      self._module.apply(self._variables, self._readable(images_FHW3), method="features")[-1], axis=(1, 2)
    )

  @property
  def of_features(self) -> str:
    """What these features must be called."""
    return f"{self.network}_{NETWORKS[self.network].deepest}"

  @property
  def _module(self) -> PerceptualNetwork:
    return PerceptualNetwork(self.network)

  @property
  def _variables(self) -> dict:
    """The compiler shall not compute with constants of so many megabytes."""
    return {"params": jax.lax.optimization_barrier(self.params)}

  def _readable(self, images_FHW3: Array) -> Array:
    times = enlargement(self.network, *images_FHW3.shape[1:3])
    return images_FHW3 if times == 1 else images_FHW3.repeat(times, axis=1).repeat(times, axis=2)


def _normalized(features_FhwC: Array) -> Array:
  square = jnp.sum(jnp.square(features_FhwC), axis=-1, keepdims=True)
  return features_FhwC * jax.lax.rsqrt(jnp.maximum(square, SMALLEST_NORM**2))


def enlargement(network: str, height: int, width: int) -> int:
  """The whole factor by which images of so many pixels are enlarged for a network."""
  return max(1, -(-NETWORKS[network].least_pixels // min(height, width)))


def flops(network: str, height: int, width: int) -> int:
  """Of the products of one pass on one image."""
  times, described, channels, total = enlargement(network, height, width), NETWORKS[network], 3, 0
  sides = [height * times, width * times]
  for c in described.convolutions:
    if c.pools:
      sides = [(side - described.pool) // 2 + 1 for side in sides]
    sides = [(side + 2 * c.padding - c.kernel) // c.stride + 1 for side in sides]
    total += 2 * sides[0] * sides[1] * c.kernel**2 * channels * c.channels
    channels = c.channels
  return total
