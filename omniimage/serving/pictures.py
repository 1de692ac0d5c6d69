"""Pictures as they come and go: bytes and data: URIs within limits, pixels as PNG, JPEG or WebP."""

import base64
import binascii
import io
import re

import numpy as np
from PIL import Image

from omniimage.data.images import BadImage, stored_size
from omniimage.sampling.events import to_uint8
from omniimage.serving.limits import Limits
from omniimage.serving.refusals import Refused

FORMATS = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}  # that pictures are given in
SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}


def check_picture(encoded: bytes, limits: Limits, field: str):
  """Refused where the header is none of a picture, or of one with too many pixels; nothing is decoded."""
  try:
    height, width = stored_size(encoded)
  except BadImage as error:
    raise Refused(f"{field} cannot be read: {error}; give another picture", field=field) from None
  if height * width > limits.picture_pixels:
    raise Refused(
      f"{field} has {width}×{height} pixels; at most {limits.picture_pixels:,} are read, make it smaller", 413, field
    )


def suffix_of(encoded: bytes) -> str:
  """What the name of a picture's file ends with."""
  return next((suffix for magic, suffix in SUFFIXES.items() if encoded.startswith(magic)), ".bin")


def of_data_uri(uri: str, limits: Limits, field: str) -> bytes:
  """The picture in a data: URI. Refused for what is none: nothing is fetched from anywhere."""
  found = re.match(r"data:[\w.+/-]*(?:;[\w.=+-]+)*;base64,", uri[:200])
  if not found:
    raise Refused(
      f"{field} must be a data: URI with base64, as data:image/png;base64,…; addresses are not fetched", field=field
    )
  try:
    encoded = base64.b64decode(uri[found.end() :], validate=True)
  except (binascii.Error, ValueError):
    raise Refused(f"{field} is not base64", field=field) from None
  check_picture(encoded, limits, field)
  return encoded


def encoded(pixels: np.ndarray, format: str = "png") -> bytes:
  """Pixels (H,W,3) in [-1, 1] or uint8 as a file of one of FORMATS."""
  out = io.BytesIO()
  image = Image.fromarray(pixels if pixels.dtype == np.uint8 else to_uint8(pixels))
  image.save(out, format, **({"lossless": True} if format == "webp" else {"quality": 95} if format == "jpeg" else {}))
  return out.getvalue()


def as_base64(content: bytes) -> str:
  return base64.b64encode(content).decode()


def as_data_uri(pixels: np.ndarray, format: str = "png") -> str:
  return f"data:{FORMATS[format]};base64,{as_base64(encoded(pixels, format))}"
