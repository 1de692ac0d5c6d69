"""Pictures of every kind that people have come out as a person expects to see them; what is none has its reason."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from omniimage.data import images
from omniimage.data.images import BadImage, decode, inspect
from omniimage.size import Size
from tests.odd_pictures import (
  BLUE,
  GRAY,
  GREEN,
  PICTURE,
  RED,
  WHITE,
  bad,
  corners,
  encoded,
  png_header,
  quarters,
  swapped_profile,
  turned,
  ycck,
)  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's, which the module filters outside of tests

SIZE = Size(rows=4, columns=6, pixels_per_token=8)  # 32 high, 48 wide


def seen(data: bytes, size: Size = SIZE, fit: str = "stretch", background=WHITE) -> list[tuple[int, ...]]:
  pixels = decode(data, size, fit, background)
  assert pixels.shape == (*size.pixels, 3) and pixels.dtype == np.uint8
  return corners(pixels)


def assert_seen(data: bytes, *expected, tolerance: int = 6, **how):
  found = seen(data, **how)
  assert np.abs(np.subtract(found, expected)).max() <= tolerance, found


# ------------------------------------------------------------------------------------------------ kinds of files

FILES = {
  "JPEG": {"quality": 95},
  "PNG": {},
  "WEBP": {"quality": 95},
  "GIF": {},
  "BMP": {},
  "TIFF": {"compression": "tiff_lzw"},
  "PPM": {},
  "AVIF": {"quality": 90},
  "MPO": {"quality": 95, "save_all": True, "append_images": [Image.new("RGB", (96, 64))]},
}


@pytest.mark.parametrize("format", FILES)
def test_every_format_comes_out_as_it_went_in(format):
  data = encoded(PICTURE, format, **FILES[format])
  found = inspect(data)
  assert (found.height, found.width, found.format) == (64, 96, format) and format in (*images.FORMATS, "MPO")
  assert_seen(data, RED, GREEN, BLUE, GRAY)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", images.FITS)
def test_a_camera_held_in_any_way_gives_an_upright_picture(format, orientation, fit):
  data = turned(orientation, format)
  assert (inspect(data).height, inspect(data).width) == (64, 96)
  assert_seen(data, RED, GREEN, BLUE, GRAY, fit=fit)


def test_broken_or_absurd_exif_does_not_matter():
  for exif in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense", b"Exif\0\0"):
    assert_seen(encoded(PICTURE, "JPEG", exif=exif, quality=95), RED, GREEN, BLUE, GRAY)
  absurd = Image.Exif()
  absurd[0x0112] = 99
  assert_seen(encoded(PICTURE, "JPEG", exif=absurd, quality=95), RED, GREEN, BLUE, GRAY)


def test_a_name_says_nothing_only_the_content_does():
  assert inspect(encoded(PICTURE, "PNG")).format == "PNG"  # as in cat.jpg, which a browser saved


# ------------------------------------------------------------------------------------------- kinds of pixels


def gray(values, dtype) -> np.ndarray:
  return np.array(values, dtype).reshape(2, 2).repeat(32, 0).repeat(48, 1)


LEVELS = [(0,) * 3, (64,) * 3, (128,) * 3, (255,) * 3]


@pytest.mark.parametrize(
  "data",
  [
    encoded(gray([0, 64, 128, 255], np.uint8), "PNG"),
    encoded(gray([0, 64, 128, 255], np.uint8), "JPEG", quality=95),
    encoded(gray([0, 64 * 257, 128 * 257, 65535], np.uint16), "PNG"),
    encoded(gray([0, 64 * 257, 128 * 257, 65535], np.uint16), "TIFF"),
    encoded(gray([0, 64 * 257, 128 * 257, 65535], np.int32), "TIFF"),
    encoded(gray([0, 64, 128, 255], np.int32), "TIFF"),
    encoded(gray([0, 0.25, 0.5, 1], np.float32), "TIFF"),
    encoded(gray([0, 64, 128, 255], np.float32), "TIFF"),
    encoded(gray([-4, -2, 0, 4], np.float32), "TIFF"),
    encoded(gray([0, 1e6, 2e6, 4e6], np.float32), "TIFF"),
    encoded(gray([np.nan, 0.25, 0.5, 1], np.float32), "TIFF"),
    b"P5\n96 64\n65535\n" + gray([0, 64 * 257, 128 * 257, 65535], ">u2").tobytes(),
    b"P5\n96 64\n1023\n" + gray([0, 257, 514, 1023], ">u2").tobytes(),
  ],
)
def test_gray_of_any_depth_is_scaled_and_never_clipped(data):
  assert_seen(data, *LEVELS)


def test_dark_sixteen_bit_gray_stays_dark():
  assert_seen(encoded(gray([0, 100, 200, 255], np.uint16), "PNG"), *[(0,) * 3] * 3, (1,) * 3, tolerance=1)


def test_one_bit_is_black_and_white():
  one = Image.fromarray(gray([0, 255, 255, 0], np.uint8)).convert("1")
  for format in ("PNG", "TIFF", "BMP", "GIF"):
    assert_seen(encoded(one, format), (0,) * 3, WHITE, WHITE, (0,) * 3)


@pytest.mark.parametrize("background", [WHITE, (10, 120, 200)])
def test_what_is_transparent_shows_the_background(background):
  """The hidden corner is black below, as paint programs leave it: so a naive reader shows it."""
  rgba = np.dstack([quarters((0, 0, 0), GREEN, BLUE, GRAY), gray([0, 255, 255, 255], np.uint8)])
  palette = Image.fromarray(quarters((0, 0, 0), GREEN, BLUE, GRAY)).quantize(8)
  hidden = palette.getpixel((10, 10))
  la = Image.fromarray(np.dstack([gray([0, 20, 180, 128], np.uint8), gray([0, 255, 255, 255], np.uint8)]), "LA")
  grays = background, (20,) * 3, (180,) * 3, (128,) * 3
  colors = background, GREEN, BLUE, GRAY
  for data, expected in (
    (encoded(rgba, "PNG"), colors),
    (encoded(rgba, "WEBP", lossless=True), colors),
    (encoded(rgba, "TIFF"), colors),
    (encoded(rgba, "AVIF", quality=95), colors),
    (encoded(palette, "PNG", transparency=hidden), colors),
    (encoded(palette, "PNG", transparency=bytes(0 if i == hidden else 255 for i in range(8))), colors),
    (encoded(palette, "GIF", transparency=hidden), colors),
    (encoded(quarters((0, 0, 0), GREEN, BLUE, GRAY), "PNG", transparency=(0, 0, 0)), colors),
    (encoded(la, "PNG"), grays),
    (encoded(gray([0, 20, 180, 128], np.uint8), "PNG", transparency=0), grays),
  ):
    for fit in images.FITS:
      assert_seen(data, *expected, fit=fit, background=background)


def test_half_transparent_is_half_the_background():
  half = np.dstack([quarters(RED, RED, RED, RED), np.full((64, 96), 128, np.uint8)])
  expected = tuple((np.array(RED) * 128 + 255 * 127) // 255)
  assert_seen(encoded(half, "PNG"), *[expected] * 4, tolerance=2)


def test_no_dark_rim_comes_from_what_is_hidden():
  hidden = np.zeros((64, 96, 4), np.uint8)
  hidden[:, 49:] = (*RED, 255)  # beside black that nobody sees
  found = decode(encoded(hidden, "PNG"), Size(1, 1, 24), "stretch", WHITE).astype(int)
  assert found[..., 0].min() > 225


def test_print_colors_of_a_jpeg():
  cmyk = Image.fromarray(PICTURE).convert("CMYK")
  assert_seen(encoded(cmyk, "JPEG", quality=95), RED, GREEN, BLUE, GRAY, tolerance=12)
  assert_seen(encoded(cmyk, "TIFF"), RED, GREEN, BLUE, GRAY)


def test_print_colors_stored_as_brightness_and_hue():
  assert_seen(ycck(), RED, GREEN, BLUE, GRAY, tolerance=12)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_colors_of_another_profile_are_those_it_means(format):
  swapped = [tuple(reversed(color)) for color in (RED, GREEN, BLUE, GRAY)]
  data = encoded(quarters(*swapped), format, icc_profile=swapped_profile())
  assert_seen(data, RED, GREEN, BLUE, GRAY, tolerance=10)


def test_a_profile_that_is_broken_or_of_something_else_is_passed_over():
  srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
  for profile in (b"nonsense", srgb[:200], srgb):
    assert_seen(encoded(PICTURE, "PNG", icc_profile=profile), RED, GREEN, BLUE, GRAY)
  assert_seen(encoded(gray([0, 64, 128, 255], np.uint8), "PNG", icc_profile=swapped_profile()), *LEVELS)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_what_moves_or_has_pages_the_first_is_taken(format):
  others = [Image.new("RGB", (96, 64), color) for color in (GREEN, BLUE)]
  data = encoded(PICTURE, format, save_all=True, append_images=others)
  assert_seen(data, RED, GREEN, BLUE, GRAY, tolerance=10)


# --------------------------------------------------------------------------------------------------- sizes


def test_crop_takes_the_middle_and_loses_the_ends():
  wide = np.zeros((32, 128, 3), np.uint8)
  wide[:, 48:80] = RED
  for data in (encoded(wide, "PNG"), encoded(np.ascontiguousarray(wide.transpose(1, 0, 2)), "PNG")):
    found = decode(data, Size(2, 2, 8), "crop", WHITE)
    assert (found[1:-1, 1:-1] == RED).all() and found[..., 0].min() > 200  # its rim also weighs what is beside it


def test_pad_shows_all_on_the_background():
  found = decode(encoded(np.full((32, 64, 3), RED, np.uint8), "PNG"), Size(4, 4, 8), "pad", (1, 2, 3))
  assert (found[8:24] == RED).all() and (found[:8] == (1, 2, 3)).all() and (found[24:] == (1, 2, 3)).all()
  line = decode(encoded(np.full((2, 40, 3), RED, np.uint8), "PNG"), Size(1, 1, 8), "pad", WHITE)
  assert (line == RED).all(-1).sum() == 8


def test_stretch_shows_all_of_it_and_fills_the_size():
  assert_seen(encoded(PICTURE, "PNG"), RED, GREEN, BLUE, GRAY, size=Size(8, 2, 4), fit="stretch")


@pytest.mark.parametrize("fit", images.FITS)
def test_small_pictures_are_enlarged(fit):
  assert_seen(encoded(PICTURE[::32, ::48], "PNG"), RED, GREEN, BLUE, GRAY, tolerance=30, fit=fit)


def test_a_picture_of_the_size_is_not_touched():
  noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
  for fit in images.FITS:
    np.testing.assert_array_equal(decode(encoded(noise, "PNG"), SIZE, fit, WHITE), noise)


@pytest.mark.parametrize("side", [97, 200, 333, 400, 777])
@pytest.mark.parametrize("fit", images.FITS)
def test_a_jpeg_decoded_at_a_part_of_its_size_shows_the_same(side, fit):
  rows, columns = np.mgrid[0:side, 0 : side + 31]
  photo = np.stack([128 + 100 * np.sin(rows / 40), columns * 255 / (side + 31), 255 - rows * 255 / side], -1)
  photo = photo.astype(np.uint8)
  whole = decode(encoded(photo, "PNG"), SIZE, fit, WHITE)
  part = decode(encoded(photo, "JPEG", quality=95), SIZE, fit, WHITE)
  assert np.abs(whole.astype(int) - part).max() <= 8 and np.abs(whole.astype(int) - part).mean() < 1.5


def test_a_jpeg_a_little_too_small_at_half_its_size_is_sharper_than_one_reduced_bilinearly():
  """As photos of 480 lines for 256, here of 60 for 32; detail of every scale, as pictures have it."""
  rng = np.random.default_rng(0)
  detail = sum(
    np.kron(rng.normal(size=(60 // n, 90 // n)), np.ones((n, n))) * n**0.5 for n in (1, 2, 3, 5, 6, 10, 15, 30)
  )
  photo = Image.fromarray(np.clip(128 + 12 * detail, 0, 255).astype(np.uint8).repeat(8, 0).repeat(8, 1)).resize(
    (90, 60)
  )
  ours = decode(encoded(photo.convert("RGB"), "JPEG", quality=95), SIZE, "stretch", WHITE)[..., 0].astype(float)
  bilinear = np.asarray(photo.resize((48, 32), Image.Resampling.BILINEAR)).astype(float)
  ideal = np.asarray(photo.resize((48, 32), Image.Resampling.LANCZOS)).astype(float)
  sharpness = [np.abs(np.diff(image)).mean() for image in (bilinear, ours, ideal)]
  assert sharpness[0] < sharpness[1] < 1.1 * sharpness[2]
  assert np.abs(ours - ideal).mean() < 12


# ------------------------------------------------------------------------------------------------- bad ones


def refused(data: bytes) -> str:
  with pytest.raises(BadImage) as reason:
    inspect(data)
  with pytest.raises(BadImage) as again:
    decode(data, SIZE, "crop", WHITE)
  assert str(again.value) == str(reason.value) and "\n" not in str(reason.value) and len(str(reason.value)) < 200
  return str(reason.value)


NOISE = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize("format", FILES)
@pytest.mark.parametrize("left", [0.1, 0.5, 0.9])
def test_what_breaks_off_is_refused(format, left):
  data = encoded(NOISE, format, **{**FILES[format], "append_images": []})
  assert refused(data[: int(left * len(data))]).startswith(("truncated ", "broken ", "no picture: the header"))


def test_a_jpeg_that_lacks_only_its_end_is_truncated():
  assert refused(encoded(NOISE, "JPEG")[:-100]) == "truncated JPEG: it ends too early"


@pytest.mark.parametrize(
  "data, reason",
  [
    (b"", "an empty file (0 bytes)"),
    (b"see you at the cat show\n", "no picture: text"),
    (b"  <!DOCTYPE html><html>404</html>", "no picture: a web page"),
    (
      b"<svg xmlns='http://www.w3.org/2000/svg'/>",
      "no picture: an SVG drawing, which cannot be read; convert it to PNG",
    ),
    (b"\0\0\0\x18ftypheic\0\0\0\0heic", "no picture: a HEIC picture, which cannot be read; convert it to JPEG"),
    (b"\0\0\0\x18ftypisom\0\0\0\0isom", "no picture: a video"),
    (b"%PDF-1.4\n%\xe2", "no picture: a PDF or PostScript document"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture: a PDF or PostScript document"),
    (b"PK\x03\x04\x14\0", "no picture: an archive"),
    (
      b"version https://git-lfs.github.com/spec/v1\n",
      "no picture: a pointer of Git LFS to a picture; run git lfs pull",
    ),
    (b"\xff\xd8\xff\xe0", "no picture: the header of the picture is broken or cut off"),
    (b"\0" * 5000, f"no picture: it begins as none of {', '.join(images.FORMATS)} does"),
  ],
)
def test_what_is_no_picture_has_its_reason(data, reason):
  assert refused(data) == reason


@pytest.mark.parametrize("width, height", [(12_000, 12_000), (20_000, 20_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_by_its_header(width, height):
  assert f"more than {images.MAX_PIXELS:,} pixels" in refused(png_header(width, height))


@pytest.mark.parametrize("name", bad())
def test_every_file_that_is_none_is_refused(name):
  data, reason = bad()[name]
  assert reason in refused(data)


def test_more_bytes_than_a_picture_has_are_refused(monkeypatch):
  monkeypatch.setattr(images, "MAX_BYTES", 1000)
  assert refused(encoded(NOISE, "PNG")).endswith("bytes, more than 1,000")


@pytest.mark.parametrize("width, height", [(1, 1), (1, 60_000), (1000, 40), (30_000, 1)])
def test_absurd_sizes_are_refused(width, height):
  assert refused(encoded(Image.new("L", (width, height)), "PNG")).startswith(f"{width}×{height} pixels: ")


def test_the_limits_themselves_are_allowed():
  assert inspect(encoded(Image.new("L", (40, 2)), "PNG")).width == 40
  assert inspect(encoded(Image.new("L", (2, 2)), "PNG")).width == 2


def test_a_size_of_zero_is_refused():
  refused(png_header(0, 5))
  refused(b"P6\n0 0\n255\n")


# --------------------------------------------------------------------------------------- all kinds at once

SAMPLES = [encoded(NOISE[:24, :24], format, **{**FILES[format], "append_images": []}) for format in FILES]
SAMPLES += [
  encoded(Image.fromarray(NOISE[:24, :24]).quantize(16), "PNG", transparency=b"\0\x80\xff"),
  encoded(Image.fromarray(NOISE[:24, :24]), "JPEG", progressive=True),
  encoded(Image.fromarray(NOISE[:24, :24]).convert("CMYK"), "JPEG"),
  encoded(gray([0, 1, 2, 3], np.float32), "TIFF"),
  encoded(Image.fromarray(NOISE[:24, :24]), "TIFF", compression="tiff_adobe_deflate"),
  b"P3\n2 2\n255\n" + b"1 2 3 " * 4,
]


def only_pixels_or_a_reason(data: bytes):
  try:
    found = inspect(data)
  except BadImage as reason:
    assert "\n" not in str(reason)
    found = None
  try:
    assert decode(data, Size(2, 2, 4), "crop", WHITE).shape == (8, 8, 3)
  except BadImage:
    assert found is None


@settings(max_examples=150, deadline=2000, suppress_health_check=list(HealthCheck))
@given(st.sampled_from([sample[:8] for sample in SAMPLES] + [b""]), st.binary(max_size=300))
def test_random_bytes_are_a_reason_or_a_picture(begins, rest):
  only_pixels_or_a_reason(begins + rest)


@settings(max_examples=400, deadline=2000, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_flipped_bytes_are_a_reason_or_a_picture(data):
  sample = bytearray(data.draw(st.sampled_from(SAMPLES)))
  for _ in range(data.draw(st.integers(1, 4))):
    sample[data.draw(st.integers(0, len(sample) - 1))] = data.draw(st.integers(0, 255))
  cut = data.draw(st.integers(0, len(sample)) | st.just(len(sample)))
  only_pixels_or_a_reason(bytes(sample[:cut]))


def test_threads_do_not_disturb_each_other():
  def read(data: bytes) -> bytes:
    return decode(data, SIZE, "crop", WHITE).tobytes()

  good = [sample for sample in SAMPLES if not sample.startswith(b"P3")]
  with ThreadPoolExecutor(8) as pool:
    assert list(pool.map(read, good * 20)) == [read(data) for data in good] * 20
