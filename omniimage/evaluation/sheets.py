"""Contact sheets: examples as rows, or as a grid if there is one picture of each, with their captions, as one image."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

DISPLAYED = 128  # pixels that small images are enlarged to, by whole factors
GRID_COLUMNS = 8  # most examples side by side, where each is one picture
CAPTION_WIDTH = 200  # of the captions beside rows
MARGIN, GAP, TEXT_GAP = 14, 8, 4
FONT_SIZE, LINE = 13, 17
PAPER, INK, PALE_INK, EDGE = (255, 255, 255), (32, 32, 36), (112, 112, 120), (216, 216, 220)


def to_uint8(images) -> np.ndarray:
  """Images (..., 3), float in [-1, 1] or uint8, as uint8. Others are clipped, those not a number are gray."""
  images = np.asarray(images)
  if images.dtype == np.uint8:
    return images
  unit = np.nan_to_num(images.astype(np.float32), nan=0, posinf=1, neginf=-1).clip(-1, 1) / 2 + 0.5
  return np.round(unit * 255).astype(np.uint8)


def enlargement(side: int, displayed: int = DISPLAYED) -> int:
  """The whole factor that brings images with sides of so many pixels close to `displayed`."""
  return max(displayed // side, 1)


def sheet(columns: Mapping[str, np.ndarray], captions: Sequence[str]) -> Image.Image:
  """One image of n examples.

  Args:
    columns: pictures of each kind by their title, (n, H, W, 3) float in [-1, 1] or uint8; sizes may differ.
    captions: n of them.

  Raises:
    ValueError: without columns, or if their numbers differ.
  """
  pictures = {title: to_uint8(images) for title, images in columns.items()}
  counts = {title: len(images) for title, images in pictures.items()}
  if not pictures or set(counts.values()) != {len(captions)} or not captions:
    raise ValueError(f"sheet: {len(captions)} captions and columns of {counts or 'nothing'}; expected as many of each")
  displayed = max(DISPLAYED, *(max(images.shape[1:3]) for images in pictures.values()))
  pictures = {title: _enlarged(images, displayed) for title, images in pictures.items()}
  return _grid(*pictures.items(), captions) if len(pictures) == 1 else _rows(pictures, captions)


def _enlarged(images: np.ndarray, displayed: int) -> np.ndarray:
  factor = enlargement(max(images.shape[1:3]), displayed)
  return images.repeat(factor, axis=1).repeat(factor, axis=2)


def _rows(pictures: dict[str, np.ndarray], captions: Sequence[str]) -> Image.Image:
  """A row an example: its caption, then its pictures under the columns' titles."""
  font = ImageFont.load_default(FONT_SIZE)
  widths = [max(images.shape[2], int(font.getlength(title)) + 1) for title, images in pictures.items()]
  lefts = MARGIN + CAPTION_WIDTH + 2 * GAP + np.cumsum([0, *(width + GAP for width in widths)])
  texts = [_wrapped(caption, CAPTION_WIDTH, font) for caption in captions]
  tallest = max(images.shape[1] for images in pictures.values())
  tops = MARGIN + LINE + TEXT_GAP + np.cumsum([0, *(max(tallest, LINE * len(text)) + GAP for text in texts)])
  canvas, pen = _canvas(lefts[-1] - GAP + MARGIN, tops[-1] - GAP + MARGIN)
  for left, (title, images) in zip(lefts, pictures.items()):
    pen.text((left, MARGIN), title, INK, font)
    for top, image in zip(tops, images):
      _place(canvas, pen, image, left, top)
  for top, text in zip(tops, texts):
    _write(pen, text, MARGIN, top, font)
  return canvas


def _grid(column: tuple[str, np.ndarray], captions: Sequence[str]) -> Image.Image:
  """Pictures side by side, each above its caption."""
  (title, images), font = column, ImageFont.load_default(FONT_SIZE)
  _, height, width, _ = images.shape
  across = min(GRID_COLUMNS, int(np.ceil(len(images) ** 0.5)))
  texts = [_wrapped(caption, width, font) for caption in captions]
  lines = [max(map(len, texts[i : i + across])) for i in range(0, len(texts), across)]
  tops = MARGIN + LINE + TEXT_GAP + np.cumsum([0, *(height + TEXT_GAP + LINE * most + GAP for most in lines)])
  canvas, pen = _canvas(2 * MARGIN + across * (width + GAP) - GAP, tops[-1] - GAP + MARGIN)
  pen.text((MARGIN, MARGIN), title, INK, font)
  for i, (image, text) in enumerate(zip(images, texts)):
    left, top = MARGIN + i % across * (width + GAP), tops[i // across]
    _place(canvas, pen, image, left, top)
    _write(pen, text, left, top + height + TEXT_GAP, font)
  return canvas


def _canvas(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
  canvas = Image.new("RGB", (int(width), int(height)), PAPER)
  return canvas, ImageDraw.Draw(canvas)


def _place(canvas: Image.Image, pen: ImageDraw.ImageDraw, image: np.ndarray, left: int, top: int):
  """Pastes a picture, with a hairline around it that shows where a white one ends."""
  height, width, _ = image.shape
  pen.rectangle((left - 1, top - 1, left + width, top + height), outline=EDGE)
  canvas.paste(Image.fromarray(image), (int(left), int(top)))


def _write(pen: ImageDraw.ImageDraw, lines: Sequence[str], left: int, top: int, font: ImageFont.FreeTypeFont):
  for i, line in enumerate(lines):
    pen.text((left, top + i * LINE), line, PALE_INK, font)


def _wrapped(text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
  """Lines of at most `width` pixels; a word longer than that is broken."""
  lines = [""]
  for word in text.split():
    longer = f"{lines[-1]} {word}".strip()
    if font.getlength(longer) <= width:
      lines[-1] = longer
      continue
    if lines[-1]:
      lines.append("")
    for letter in word:
      if font.getlength(lines[-1] + letter) > width:
        lines.append("")
      lines[-1] += letter
  return lines
