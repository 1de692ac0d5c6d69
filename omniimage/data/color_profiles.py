"""Colors of another profile than sRGB: pictures of phones (Display P3), of cameras (Adobe RGB) and for print (CMYK)."""

import functools
import io

from PIL import Image, ImageCms

# Of an image's mode: the color space of a profile that is meant for it, and the mode it is converted to.
MEANT = {"L": ("GRAY", "L"), "RGB": ("RGB", "RGB"), "RGBA": ("RGB", "RGBA"), "CMYK": ("CMYK", "RGB")}
KEPT = 32  # transforms; a data set has few profiles


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
  """The image (L, RGB, RGBA, CMYK) in sRGB; as it is where its profile is broken or meant for something else."""
  transform = _transform(profile, image.mode)
  return image if transform is None else ImageCms.applyTransform(image, transform)


@functools.lru_cache(maxsize=KEPT)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
  """None where there is nothing to convert, or no way to."""
  try:
    read = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space, target = MEANT[mode]
    if read.profile.xcolor_space.strip() != space or "srgb" in ImageCms.getProfileDescription(read).lower():
      return None
    return ImageCms.buildTransform(read, ImageCms.createProfile("sRGB"), mode, target)
  except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
    return None
