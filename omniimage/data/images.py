"""Pictures of any kind, as people have them: encoded bytes become upright RGB pixels of a size of the run.

What a picture shows is kept: it stands upright (EXIF), what is transparent shows the background, 16 bits and floats are
scaled and not clipped, colors of another profile are converted to sRGB, of an animation the first frame is taken. Sizes
come by one of FITS, antialiased; smaller pictures are enlarged: what is blurred can be learnt from, what is left out
cannot. A JPEG is decoded at 1/8, 1/4 or 1/2 of its size where that is enough, so that most of it never is.

What is no picture, or breaks off, or is larger than MAX_PIXELS, is a BadImage with its reason. Nothing here runs an
interpreter (EPS, PDF, SVG), follows a path or keeps a state: threads may share it.
"""

import contextlib
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from omniimage.data.color_profiles import to_srgb
from omniimage.size import Size

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")  # as Pillow names them
DRAFTED = ("JPEG", "MPO")  # decoded at a part of their size where that is enough
MAX_PIXELS = 2**27  # 134 megapixels: more than cameras give, less than would fill the memory of a worker
MAX_BYTES = 2**28  # of an encoded picture
MAX_ASPECT = 20  # of the longer side to the shorter; beyond it a picture is a rule or a banner
MIN_SIDE = 2  # pixels; what is 1×1 counts visitors of web pages
# Hamming is as sharp as bicubic at half the price, but for reducing only.
REDUCE, ENLARGE = Image.Resampling.HAMMING, Image.Resampling.BICUBIC
# A JPEG may be decoded a little smaller than it is wanted (480 lines as 240 for 256) and enlarged: it is then still
# sharper than all of it reduced bilinearly, for two thirds of the time.
ENOUGH = 15 / 16
REDUCING_GAP = 2.0  # pixels are averaged before they are resized, down to so many times the size
WHITES = (1, 255, 65535)  # of numbers that do not say what white is

Color = tuple[int, int, int]  # red, green, blue, each 0–255
Box = tuple[float, float, float, float]  # left, top, right, bottom

# How a picture is stored, by its EXIF orientation → what sets it upright.
UPRIGHT = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
ORIENTATION = 0x0112  # of EXIF
LYING = (5, 6, 7, 8)  # of UPRIGHT: width and height change places

# What is taken for a picture and is none, by how it begins.
IMPOSTORS = (
  (
    rb"\xff\xd8|\x89PNG|GIF8|BM|RIFF....WEBP|II\*\0|MM\0\*|....ftypavi",
    "the header of the picture is broken or cut off",
  ),
  (rb"....ftyp(hei|hev|mif1|msf1)", "a HEIC picture, which cannot be read; convert it to JPEG"),
  (rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI", "a video"),
  (rb"%PDF|%!PS", "a PDF or PostScript document"),
  (rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf", "an archive"),
  (rb"\s*<(?i:!doctype html|html)", "a web page"),
  (rb"\s*<(?i:\?xml|svg)", "an SVG drawing, which cannot be read; convert it to PNG"),
  (rb"version https://git-lfs", "a pointer of Git LFS to a picture; run git lfs pull"),
  (rb"[\t\n\r\x20-\x7e]{1,64}", "text"),
)

# Pillow warns of what it passes over, as odd EXIF, and of large pictures, which have a limit here; a filter for all
# threads, because changing it around each picture is not safe among them.
warnings.filterwarnings("ignore", module=r"PIL\.")


class BadImage(ValueError):
  """What is given is no picture that can be learnt from. The message is the reason, one line, in plain words."""


@dataclass(frozen=True)
class Inspected:
  """What a picture is, seen upright.

  Attributes:
    format: of FORMATS, or "MPO", several JPEGs in one file.
  """

  height: int
  width: int
  format: str


def inspect(encoded: bytes) -> Inspected:
  """What these bytes are. They are decoded to their end; BadImage where `decode` would fail."""
  image = _open(encoded)
  with _plain_words(image.format):
    width, height = _upright(image.size, _orientation(image))
    image.draft(None, (1, 1))  # all of a JPEG is read, little of it computed
    _eight_bits(image)
  return Inspected(height, width, image.format)


def upright_size(encoded: bytes) -> tuple[int, int]:
  """Height and width by the header alone, where that tells them. BadImage where none can be read."""
  image = _open(encoded)
  with _plain_words(image.format):
    return _upright(image.size, _orientation(image))[::-1]


def stored_size(encoded: bytes) -> tuple[int, int]:
  """Height and width as they are stored, by the header alone. BadImage where none can be read."""
  return _open(encoded).size[::-1]


def shown_size(encoded: bytes) -> tuple[int, int]:
  """Height and width as they are shown, by the header alone. BadImage where none can be read."""
  image = _open(encoded)
  return _upright(image.size, _orientation(image))[::-1]


def decode(encoded: bytes, size: Size, fit: str, background: Color) -> np.ndarray:
  """The picture at a size, (H,W,3) uint8. BadImage where there is none.

  Args:
    fit: of FITS.
    background: what shows through, and around what does not fill the size.
  """
  height, width = size.pixels
  image = _open(encoded)
  with _plain_words(image.format):
    orientation = _orientation(image)
    box, placed = FITS[fit](_upright(image.size, orientation), (width, height))
    # The box is symmetric about the center, so that only its axes can lie otherwise in what is stored.
    box = (*_upright(box[:2], orientation), *_upright(box[2:], orientation))
    image = _resized(image, box, _upright(placed, orientation))
    if orientation in UPRIGHT:
      image = image.transpose(UPRIGHT[orientation])
    if image.mode != "RGBA" and image.size == (width, height):
      return np.asarray(image.convert("RGB"))
    canvas = Image.new("RGB", (width, height), background)
    corner = (width - image.width) // 2, (height - image.height) // 2
    canvas.paste(image, corner, mask=image if image.mode == "RGBA" else None)
    return np.asarray(canvas)


def crop(picture: tuple[int, int], size: tuple[int, int]) -> tuple[Box, tuple[int, int]]:
  """Fills the size; what is too long on one side is cut off at both of its ends."""
  scale = max(size[0] / picture[0], size[1] / picture[1])
  x, y = (max(0.0, (length - wanted / scale) / 2) for length, wanted in zip(picture, size))
  return (x, y, picture[0] - x, picture[1] - y), size


def pad(picture: tuple[int, int], size: tuple[int, int]) -> tuple[Box, tuple[int, int]]:
  """All of the picture, in the middle of the background."""
  scale = min(size[0] / picture[0], size[1] / picture[1])
  width, height = (min(wanted, max(1, round(length * scale))) for length, wanted in zip(picture, size))
  return (0, 0, *picture), (width, height)


def stretch(picture: tuple[int, int], size: tuple[int, int]) -> tuple[Box, tuple[int, int]]:
  """All of the picture, its proportions changed to those of the size."""
  return (0, 0, *picture), size


# How a picture comes to a size, both (width, height): the part of the picture that is seen, and the size it is seen at.
Fit = Callable[[tuple[int, int], tuple[int, int]], tuple[Box, tuple[int, int]]]
FITS: dict[str, Fit] = {"crop": crop, "pad": pad, "stretch": stretch}


def _open(encoded: bytes) -> Image.Image:
  """The picture, of which only the header is read yet. BadImage if it is none, or of an absurd size."""
  if not encoded:
    raise BadImage("an empty file (0 bytes)")
  if len(encoded) > MAX_BYTES:
    raise BadImage(f"{len(encoded):,} bytes, more than {MAX_BYTES:,}")
  with _plain_words("picture"):
    try:
      image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except UnidentifiedImageError:
      raise BadImage(f"no picture: {_what(encoded)}") from None
  width, height = image.size
  if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
    raise BadImage(f"{width}×{height} pixels: a side of less than {MIN_SIDE}, or one over {MAX_ASPECT} times the other")
  if width * height > MAX_PIXELS:
    raise BadImage(f"more than {MAX_PIXELS:,} pixels: {width}×{height}")
  return image


def _what(encoded: bytes) -> str:
  """What these bytes are, which are no picture."""
  unknown = f"it begins as none of {', '.join(FORMATS)} does"
  return next((what for begins, what in IMPOSTORS if re.match(begins, encoded[:64], re.DOTALL)), unknown)


@contextlib.contextmanager
def _plain_words(format: str) -> Iterator[None]:
  """Around what Pillow does with bytes from anywhere, which may raise anything. BadImage instead."""
  try:
    yield
  except BadImage:
    raise
  except Image.DecompressionBombError:
    raise BadImage(f"more than {MAX_PIXELS:,} pixels") from None
  except Exception as error:
    said = " ".join(str(error).split())[:120] or type(error).__name__
    cut = "truncat" in said.lower() or isinstance(error, EOFError)
    raise BadImage(f"truncated {format}: it ends too early" if cut else f"broken {format}: {said}") from None


def _orientation(image: Image.Image) -> int:
  """By its EXIF; 1 is upright. Where that is broken nothing of it is believed."""
  if image.format not in DRAFTED:
    image.load()  # a PNG may say it behind its pixels; a TIFF is upright once it is loaded
  try:
    return int(image.getexif().get(ORIENTATION, 1))
  except Exception:
    return 1


def _upright(size: tuple[int, int], orientation: int) -> tuple[int, int]:
  """Width and height as they are seen, or as they are stored: that is the same change."""
  return size[::-1] if orientation in LYING else size


def _resized(image: Image.Image, box: Box, size: tuple[int, int]) -> Image.Image:
  """The part in the box, at a size (width, height), as RGB or RGBA of sRGB, or L."""
  whole = image.size
  wanted = (math.ceil(ENOUGH * whole[i] * size[i] / (box[i + 2] - box[i])) for i in range(2))
  if drafted := image.draft(None, tuple(wanted)):
    scales = (drafted[1][2] / whole[0], drafted[1][3] / whole[1]) * 2
    box = tuple(edge * scale for edge, scale in zip(box, scales))
  profile = image.info.get("icc_profile")
  image = _eight_bits(image)
  enlarged = box[2] - box[0] < size[0] or box[3] - box[1] < size[1]
  image = image.resize(size, ENLARGE if enlarged else REDUCE, box=box, reducing_gap=REDUCING_GAP)
  return to_srgb(image, profile) if profile else image


def _eight_bits(image: Image.Image) -> Image.Image:
  """Decoded, as L, RGB, RGBA or CMYK."""
  image.load()
  if image.mode[0] in "IF":
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format != "TIFF")
    return Image.fromarray(_scaled(np.asarray(image), sixteen))
  if image.has_transparency_data:
    return image.convert("RGBA")
  if image.mode in ("L", "RGB", "CMYK"):
    return image
  return image.convert("L" if image.mode == "1" else "RGB")


def _scaled(gray: np.ndarray, sixteen: bool) -> np.ndarray:
  """(H,W) of integers or floats to uint8.

  White is 65535 of numbers of sixteen bits. Of others it is the first of WHITES that nothing exceeds; where there is
  none, or something is below 0, the least becomes black and the most white. What is no number is 0.
  """
  gray = np.nan_to_num(gray.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
  least, most = float(gray.min()), float(gray.max())
  white = WHITES[-1] if sixteen else next((white for white in WHITES if most <= white), None)
  black, white = (least, most) if least < 0 or white is None else (0, white)
  return np.round((gray - black) * (255 / max(white - black, 1e-30))).astype(np.uint8)
