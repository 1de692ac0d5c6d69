"""A picture of four colors, stored in the odd ways that people's pictures come in; and files that are none."""

import io
import struct
import zlib
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageCms

RED, GREEN, BLUE, GRAY = (230, 20, 20), (20, 180, 40), (30, 40, 220), (128, 128, 128)
WHITE = (255, 255, 255)


def quarters(top_left, top_right, bottom_left, bottom_right) -> np.ndarray:
  """(64,96,3): four colors, one in each corner."""
  return np.array([[top_left, top_right], [bottom_left, bottom_right]], np.uint8).repeat(32, 0).repeat(48, 1)


PICTURE = quarters(RED, GREEN, BLUE, GRAY)


def encoded(image, format: str, **options) -> bytes:
  image = Image.fromarray(np.ascontiguousarray(image)) if isinstance(image, np.ndarray) else image
  out = io.BytesIO()
  image.save(out, format, **options)
  return out.getvalue()


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
  """The colors in the middle of the four quarters, in the order of `quarters`."""
  height, width = pixels.shape[:2]
  return [tuple(pixels[y, x].tolist()) for y in (height // 4, -height // 4) for x in (width // 4, -width // 4)]


def stored_as(orientation: int) -> np.ndarray:
  """PICTURE as a camera held so stores it; EXIF 2.3 says where its first row and column are seen."""
  turned = PICTURE.transpose(1, 0, 2)
  return {
    1: PICTURE,
    2: PICTURE[:, ::-1],
    3: PICTURE[::-1, ::-1],
    4: PICTURE[::-1],
    5: turned,  # the first row is the left side, the first column the top
    6: turned[::-1],  # right side, top
    7: turned[::-1, ::-1],  # right side, bottom
    8: turned[:, ::-1],  # left side, bottom
  }[orientation]


def turned(orientation: int, format: str) -> bytes:
  exif = Image.Exif()
  exif[0x0112] = orientation
  return encoded(stored_as(orientation), format, exif=exif)


def swapped_profile() -> bytes:
  """An ICC profile whose red is sRGB's blue."""
  profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
  profile = profile.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
  table = profile[128:]
  entries = {table[4 + 12 * i : 8 + 12 * i]: 136 + 12 * i for i in range(struct.unpack(">I", table[:4])[0])}
  red, blue = entries[b"rXYZ"], entries[b"bXYZ"]
  out = bytearray(profile)
  out[red : red + 8], out[blue : blue + 8] = profile[blue : blue + 8], profile[red : red + 8]
  return bytes(out)


def ycck() -> bytes:
  """A JPEG as Photoshop saves print colors: the Adobe marker says 2."""
  luma = 255 - np.asarray(Image.fromarray(255 - PICTURE).convert("YCbCr"))
  bands = np.dstack([luma, np.zeros((64, 96), np.uint8)])
  plain = encoded(Image.fromarray(bands, "CMYK"), "JPEG", quality=95, subsampling=0)
  marker = plain.index(b"Adobe")
  assert plain[marker + 11] == 0
  return plain[: marker + 11] + b"\x02" + plain[marker + 12 :]


def png_header(width: int, height: int) -> bytes:
  """A PNG that says it is so large, and is not."""

  def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

  header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def odd() -> Mapping[str, bytes]:
  """By a file's name, PICTURE in other ways; all of them show it, on white where they are transparent."""
  opaque = np.dstack([PICTURE, np.full((64, 96), 255, np.uint8)])
  see_through = opaque.copy()
  see_through[:4] = see_through[:, :4] = 0  # a rim that nobody sees
  palette = Image.fromarray(PICTURE).quantize(8)
  swapped = quarters(*(tuple(reversed(color)) for color in (RED, GREEN, BLUE, GRAY)))
  others = [Image.new("RGB", (96, 64), color) for color in (GREEN, BLUE)]
  return {
    **{f"held {i} ways.jpg": turned(i, "JPEG") for i in range(2, 9)},
    "held.png": turned(6, "PNG"),
    "held.webp": turned(8, "WEBP"),
    "held.tif": turned(5, "TIFF"),
    "a png that says it is a jpeg.jpg": encoded(PICTURE, "PNG"),
    "a webp that says it is a png.PNG": encoded(PICTURE, "WEBP", quality=95),
    "palette.png": encoded(palette, "PNG"),
    "palette with a hidden color.gif": encoded(palette, "GIF", transparency=7),
    "see-through.png": encoded(see_through, "PNG"),
    "see-through.webp": encoded(see_through, "WEBP", lossless=True),
    "opaque alpha.png": encoded(opaque, "PNG"),
    "print.jpg": encoded(Image.fromarray(PICTURE).convert("CMYK"), "JPEG", quality=95),
    "print by photoshop.jpeg": ycck(),
    "print.tiff": encoded(Image.fromarray(PICTURE).convert("CMYK"), "TIFF"),
    "moving.gif": encoded(PICTURE, "GIF", save_all=True, append_images=others),
    "moving.webp": encoded(PICTURE, "WEBP", save_all=True, append_images=others, quality=95),
    "moving.png": encoded(PICTURE, "PNG", save_all=True, append_images=others),
    "pages.tif": encoded(PICTURE, "TIFF", save_all=True, append_images=others),
    "wide colors.jpg": encoded(swapped, "JPEG", icc_profile=swapped_profile(), quality=95),
    "progressive.jpg": encoded(PICTURE, "JPEG", progressive=True, quality=95),
    "drawing.bmp": encoded(PICTURE, "BMP"),
    "photo.avif": encoded(PICTURE, "AVIF", quality=90),
  }


def bad() -> Mapping[str, tuple[bytes, str]]:
  """By a file's name, what is no picture, and what the reason says."""
  noise = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
  jpeg, png = encoded(noise, "JPEG"), encoded(noise, "PNG")
  return {
    "half.jpg": (jpeg[: len(jpeg) // 2], "truncated JPEG"),
    "almost.jpg": (jpeg[:-40], "truncated JPEG"),
    "half.png": (png[: len(png) // 2], "truncated PNG"),
    "half.gif": (encoded(noise, "GIF")[:3000], "truncated GIF"),
    "half.webp": (encoded(noise, "WEBP")[:2000], "broken"),
    "half.tif": (encoded(noise, "TIFF")[:4000], "truncated"),
    "half.bmp": (encoded(noise, "BMP")[:4000], "truncated BMP"),
    "only a header.jpg": (jpeg[:20], "no picture: the header"),
    "nothing.jpg": (b"", "0 bytes"),
    "nothing.png": (b"", "0 bytes"),
    "zeros.jpg": (bytes(5000), "no picture: it begins as none of"),
    "text.jpg": (b"the picture will follow\n", "no picture: text"),
    "not found.jpg": (b"<!DOCTYPE html><title>404</title>", "no picture: a web page"),
    "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture: an SVG drawing"),
    "phone.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0heic", "no picture: a HEIC picture"),
    "film.jpg": (b"\0\0\0\x18ftypisom\0\0\0\0isom", "no picture: a video"),
    "paper.jpg": (b"%PDF-1.4\n", "no picture: a PDF"),
    "figure.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "no picture: a PDF or PostScript"),
    "zipped.jpg": (b"PK\x03\x04\x14\0\0\0", "no picture: an archive"),
    "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\n", "no picture: a pointer of Git LFS"),
    "bomb.png": (png_header(50_000, 50_000), "more than 134,217,728 pixels"),
    "larger bomb.png": (png_header(2**31 - 1, 2**31 - 1), "more than 134,217,728 pixels"),
    "counter.gif": (encoded(Image.new("L", (1, 1)), "GIF"), "1×1 pixels"),
    "rule.png": (encoded(Image.new("L", (3000, 9)), "PNG"), "3000×9 pixels"),
    "thread.png": (encoded(Image.new("L", (1, 60_000)), "PNG"), "1×60000 pixels"),
  }
