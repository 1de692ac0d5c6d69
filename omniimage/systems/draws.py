"""What is drawn at random for the images of an update. Axes: B rows, I image slots a row, F = B·I images."""

from collections.abc import Callable

import jax
from jax import Array

from omniimage.streams import Stream, fold


def of_images(keys: Array, images: int, stream: Stream, sampler: Callable, *shape: int) -> Array:
  """(F, *shape) for I `images` a row, each row from its own of the keys (B,); `sampler` as of `jax.random`."""
  drawn = jax.vmap(lambda key: sampler(fold(key, stream), (images, *shape)))(keys)
  return drawn.reshape(-1, *shape)
