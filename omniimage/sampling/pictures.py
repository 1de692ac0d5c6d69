"""Pictures as they are given to a trained model: files or what they hold, Pillow's images and arrays come to the size
that it reads.

They come to it as pictures of the data do (`omniimage.data.images`), by the fit and before the background of the run's
source; sources whose pictures have one size have neither, and then the middle is cropped.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from omniimage.data.images import BadImage, Color, decode, shown_size
from omniimage.errors import UserError
from omniimage.settings import Settings
from omniimage.size import Size

NEARLY_WHITE, GRAY = 220, 127  # resizing leaves rings beside black, not as dark as the first
FIT, BACKGROUND = "crop", (255, 255, 255)  # where the run's source has none

Picture = bytes | np.ndarray | Image.Image | os.PathLike


def read_picture(given: Picture, settings: Settings) -> np.ndarray:
  """A picture (H, W, 3) uint8 of the size that is drawn, from a file or its bytes, an image of Pillow or an array
  (…, …, 3) uint8 of any size. UserError where there is none."""
  size = settings.buckets[0]
  if isinstance(given, np.ndarray) and given.dtype == np.uint8 and given.shape == (*size.pixels, 3):
    return given
  with _reading(given):
    return decode(_encoded(given), size, getattr(settings.data.source, "fit", FIT), _background(settings))


def read_whole(given: Picture, settings: Settings, side: int) -> np.ndarray:
  """A picture (H, W, 3) uint8 as large as it is, but for what is over whole multiples of `side` pixels. UserError as of
  `read_picture`, and where that leaves nothing."""
  with _reading(given) as name:
    encoded = _encoded(given)
    height, width = shown_size(encoded)
    if min(height, width) < side:
      raise UserError(f"{name} is {width}×{height} pixels; the model reads {side}×{side} at least")
    return decode(encoded, Size(height // side, width // side, side), "crop", _background(settings))


def read_part(part: np.ndarray, settings: Settings) -> np.ndarray:
  """A part of a picture, (height, width) bool of any size, → (H, W) bool, as `read_picture` reads a picture of its
  proportions; what stands for some of its pixels belongs to it. UserError where it is no such array."""
  if part.dtype != bool or part.ndim != 2 or not part.size:
    raise UserError(f"a part of a picture is an array (height, width) of bool, got {part.shape} of {part.dtype}")
  shown = np.where(part, 0, 255).astype(np.uint8)  # before a background, which most of them have white, all stays
  return read_picture(np.stack([shown] * 3, axis=-1), settings)[..., 0] < NEARLY_WHITE


def read_mask(mask: bytes, picture: bytes, name: str = "mask") -> np.ndarray:
  """What a mask marks of a picture, both files, (height, width) bool: what is transparent in it or, where it cannot be,
  what is white. UserError where it cannot be read, or is of another size than the picture."""
  try:
    with Image.open(io.BytesIO(mask)) as stored:
      image = ImageOps.exif_transpose(stored)
      has_alpha = image.has_transparency_data
      shown = np.asarray(image.convert("RGBA").getchannel("A") if has_alpha else image.convert("L"))
    size = shown_size(picture)
  except BadImage as error:
    raise UserError(f"the picture cannot be read: {error}; give another one") from None
  except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
    raise UserError(f"{name} cannot be read: {error}; give another picture") from None
  if shown.shape != size:
    sizes = " and the picture ".join(f"{width}×{height}" for height, width in (shown.shape, size))
    raise UserError(f"{name} is {sizes}; give one of its size")
  return shown == 0 if has_alpha else shown > GRAY


@contextlib.contextmanager
def _reading(given: Picture) -> Iterator[str]:
  """What a picture is called; UserError where it cannot be read."""
  name = str(given) if isinstance(given, os.PathLike) else "the picture"
  try:
    yield name
  except BadImage as error:
    raise UserError(f"{name} cannot be read: {error}; give another picture") from None


def _background(settings: Settings) -> Color:
  return tuple(getattr(settings.data.source, "background", BACKGROUND))


def _encoded(given: Picture) -> bytes:
  if isinstance(given, bytes):
    return given
  if isinstance(given, os.PathLike):
    try:
      return Path(given).read_bytes()
    except OSError as error:
      raise UserError(f"{given} cannot be read: {error.strerror}; give the path of a picture") from None
  if isinstance(given, np.ndarray):
    if given.dtype != np.uint8 or given.ndim != 3 or given.shape[2] != 3 or not given.size:
      raise UserError(f"a picture is an array (height, width, 3) of uint8, got {given.shape} of {given.dtype}")
    given = Image.fromarray(given)
  png = io.BytesIO()
  try:
    given.save(png, "PNG", exif=given.getexif(), icc_profile=given.info.get("icc_profile"), compress_level=0)
  except (OSError, ValueError) as error:  # modes that PNG has not, as CMYK
    if given.mode == "RGB":
      raise BadImage(str(error)) from None
    return _encoded(given.convert("RGB"))
  return png.getvalue()
