"""Scenes as sketches: the outlines of their objects, without color."""

import functools

import numpy as np

from omniimage.data.scenes.world import BACKGROUND, SHAPES, SIZES, Scene, placed

STROKE = (104, 104, 112)  # gray
WIDTH = 0.07  # of a stroke, in cells; at least a pixel
DIRECTIONS = 16  # in which a point is tried for being near the edge


def outlines(scene: Scene, image_size: int) -> np.ndarray:
  """The sketch of a scene, (S,S,3) uint8, antialiased; strokes lie inside of what `render` fills. ValueError if a cell
  has fewer than 6.25 pixels."""
  image = np.broadcast_to(np.uint8(BACKGROUND), (image_size, image_size, 3)).copy()
  for item in scene.objects:
    where, geometry = placed(item, scene, image_size)
    image[where] = _stroke(*geometry)
  return image


@functools.lru_cache(maxsize=2048)
def _stroke(
  shape: str, size: str, cell: float, height: int, width: int, center_y: float, center_x: float
) -> np.ndarray:
  """The pixels (h,w,3) uint8 of a cell that holds an outline."""
  samples = 8 if cell <= 24 else 4
  radius, stroke = SIZES[size] * cell, max(WIDTH * cell, 1.0)
  y = ((np.arange(height * samples, dtype=np.float32) + 0.5) / samples - center_y) / radius
  x = ((np.arange(width * samples, dtype=np.float32) + 0.5) / samples - center_x) / radius
  x, y = np.meshgrid(x, y)
  inside = SHAPES[shape](x, y)
  deep = inside  # further from the edge than the stroke is wide
  for angle in 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS:
    deep = deep & SHAPES[shape](x + np.cos(angle) * stroke / radius, y + np.sin(angle) * stroke / radius)
  share = (inside & ~deep).reshape(height, samples, width, samples).mean((1, 3), dtype=np.float32)
  return np.round(BACKGROUND + share[..., None] * np.subtract(STROKE, BACKGROUND)).astype(np.uint8)
