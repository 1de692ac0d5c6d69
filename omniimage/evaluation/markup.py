"""The pieces that a report's page is made of: tables, and pictures inside it."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from omniimage.evaluation.sheets import enlargement, to_uint8


@dataclass(frozen=True, eq=False)
class Marked:
  """An image (H, W, 3) with red frames, each (left, top, width, height) in percent of it, and notes below it."""

  image: np.ndarray
  frames: Sequence[tuple[float, float, float, float]]
  notes: Sequence[str]


Picture = np.ndarray | Marked


def page(title: str, sections: Sequence[str]) -> str:
  """A whole page of HTML, which needs nothing beside it."""
  title = escape(title)
  return (
    f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}: report</title>'
    f"<style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n" + "\n".join(sections) + "\n</body></html>\n"
  )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  lines = ["".join(f"<th>{escape(cell)}</th>" for cell in header)]
  lines += [f"<th>{escape(first)}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in rest) for first, *rest in rows]
  return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def gallery(captions: Sequence[str], columns: Mapping[str, Sequence[Picture]], indices: Sequence[int]) -> str:
  """A row for each of the examples at these indices, its caption and its picture in each column, by title."""
  header = "".join(f"<th>{escape(title)}</th>" for title in columns)
  rows = []
  for i in indices:
    cells = "".join(f"<td>{_picture(shown[i], f'{title}: {captions[i]}')}</td>" for title, shown in columns.items())
    rows.append(f'<tr><td class="caption"><span>{i}</span>{escape(captions[i])}</td>{cells}</tr>')
  return f'<table class="gallery"><thead><tr><th></th>{header}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _picture(shown: Picture, alternative: str) -> str:
  if not isinstance(shown, Marked):
    return image_tag(shown, alternative)
  frames = "".join(
    f'<i style="left:{left:g}%;top:{top:g}%;width:{width:g}%;height:{height:g}%"></i>'
    for left, top, width, height in shown.frames
  )
  notes = "".join(f"<li>{escape(note)}</li>" for note in shown.notes)
  listed = f"<ul>{notes}</ul>" if notes else ""
  return f'<div class="frames">{image_tag(shown.image, alternative)}{frames}</div>{listed}'


def image_tag(image: np.ndarray, alternative: str) -> str:
  """An image (H, W, 3) inside the page, enlarged if it is small."""
  height, width, _ = image.shape
  factor = enlargement(max(height, width))
  file = io.BytesIO()
  Image.fromarray(to_uint8(image)).save(file, "PNG")
  data = base64.b64encode(file.getvalue()).decode()
  return (
    f'<img src="data:image/png;base64,{data}" width="{factor * width}" height="{factor * height}" '
    f'alt="{escape(alternative)}">'
  )


STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; color: #202024; background: #fff; max-width: 1100px; margin: 32px auto;
  padding: 0 24px; }
h1 { font-size: 24px; margin: 0 0 8px; }
h2 { font-size: 18px; margin: 36px 0 8px; padding-top: 12px; border-top: 1px solid #d8d8dc; }
h3 { font-size: 14px; margin: 20px 0 6px; }
.conditions { color: #70707a; }
p { max-width: 76ch; margin: 6px 0 12px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 18px 4px 0; text-align: left; vertical-align: top; border-bottom: 1px solid #ececf0; }
th { font-weight: 600; }
td, th:first-child { white-space: nowrap; }
td:last-child { white-space: normal; }
tr:first-child th, thead th { color: #70707a; font-weight: 400; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 0; }
.facts dt { color: #70707a; }
.facts dd { margin: 0; }
.gallery td, .gallery th { padding: 8px 10px 8px 0; white-space: normal; vertical-align: top; }
.gallery th { width: 128px; vertical-align: bottom; }
.gallery .caption { width: 220px; padding-right: 16px; }
.gallery .caption span { float: left; min-width: 26px; color: #a0a0a8; }
.gallery img { display: block; image-rendering: pixelated; outline: 1px solid #d8d8dc; }
.gallery ul { list-style: none; margin: 6px 0 0; padding: 0; max-width: 128px; color: #c00020; font-size: 12px;
  line-height: 1.35; }
.frames { position: relative; width: max-content; }
.frames i { position: absolute; box-sizing: border-box; border: 3px solid #e00028; }
.curves { display: flex; flex-wrap: wrap; gap: 12px 24px; }
svg text { font: 11px system-ui, sans-serif; fill: #70707a; }
svg .title { font-size: 13px; font-weight: 600; fill: #202024; }
svg .end { text-anchor: end; }
svg .middle { text-anchor: middle; }
svg .grid { stroke: #ececf0; }
svg polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
@media print { body { margin: 0; } }
"""
