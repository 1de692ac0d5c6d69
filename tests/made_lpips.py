"""Pictures, and networks for LPIPS, that any program can make: the published implementation has been given the same."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from omniimage.interop.safetensors_files import write_file
from omniimage.models.lpips import Lpips, PerceptualNetwork


def byte_pictures(kind: str, height: int, width: int) -> np.ndarray:
  """A picture and one like it, (2, H, W, 3) uint8."""
  row, column, color = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
  if kind == "smooth":
    picture = np.clip(128 + 100 * np.sin(row / 9 + color) * np.cos(column / 7), 0, 255).astype(np.uint8)
  else:
    picture = ((3 * row**2 + 7 * column + row * column * (color + 1)) % 256).astype(np.uint8)
  noise = (31 * row + 17 * column + 11 * color) % 41 - 20
  return np.stack([picture, np.clip(picture.astype(int) + noise, 0, 255).astype(np.uint8)])


def pictures(kind: str, height: int, width: int) -> np.ndarray:
  """The same in [-1, 1]."""
  return (byte_pictures(kind, height, width) / 127.5 - 1).astype(np.float32)


@functools.cache
def made(network: str) -> Lpips:
  """With weights that any program can make: the sines of 1.7·k + the layer, of as many as there are."""

  def weights(shape, layer):
    return np.sin(1.7 * np.arange(np.prod(shape)) + layer).reshape(shape).astype(np.float32)

  def fill(name, leaf):
    if not isinstance(leaf, dict):
      return np.abs(weights(leaf.shape, int(name.removeprefix("head_"))))
    layer, kernel = int(name.removeprefix("convolutions_")), leaf["kernel"].shape
    scale = np.float32(2 / np.sqrt(np.prod(kernel[:3])))
    return {"kernel": scale * weights(kernel, layer), "bias": np.float32(0.1) * weights(leaf["bias"].shape, layer)}

  image = jnp.zeros((1, 32, 32, 3))
  shapes = jax.eval_shape(PerceptualNetwork(network).init, jax.random.key(0), image, image)["params"]
  return Lpips(network, {name: fill(name, leaf) for name, leaf in shapes.items()})


def write(path: Path, lpips: Lpips):
  """A file of the form that `launch.convert` writes."""
  tensors = {"/".join(key.key for key in keys): leaf for keys, leaf in jax.tree.leaves_with_path(lpips.params)}
  write_file(path, tensors, {"network": lpips.network})
