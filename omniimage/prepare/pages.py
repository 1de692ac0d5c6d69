"""The pages for people: the first pairs, and the report with statistics and a sheet of records."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from omniimage.data import images
from omniimage.data.prepared import Prepared
from omniimage.data.records import Record, Text
from omniimage.evaluation.markup import STYLE, image_tag, table
from omniimage.files import write_whole
from omniimage.paths import writing
from omniimage.size import Size

SHOWN = 48  # records of the report
SIDE = 128  # pixels of the longer side of a thumbnail, at most
PICTURES = 4  # of a record, at most
CAPTION = 400  # characters
WHITE = (255, 255, 255)
SHEET = """
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 20px 16px; }
.sheet figure { margin: 0; overflow-wrap: anywhere; }
.sheet img { display: block; outline: 1px solid #d8d8dc; margin-bottom: 6px; }
.sheet small { color: #70707a; display: block; }
"""


def first_pairs(page: Path, records: Sequence[Record]):
  note = "Is each text that of its picture? If not, stop launch.prepare, delete this folder, and give other columns."
  _write(page, "The first records", f"<p>{note}</p>{_sheet(records)}")


def report(prepared: Prepared, page: Path):
  """Statistics of a data set, and records of it drawn at random, always the same."""
  told = prepared.description
  facts = {"Source": told["source"], "Format": told["source_format"], "Licence": told["licence"] or "not given"}
  listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
  tables = "".join(f"<h2>{escape(title)}</h2>{table(*content)}" for title, content in _tables(told).items())
  sheet = f"<h2>Records drawn at random</h2>{_sheet(_drawn(prepared))}"
  _write(page, told["name"], f'<dl class="facts">{listed}</dl>{tables}{sheet}')


def words(record: Record) -> str:
  """The texts of a record, its alternatives side by side."""
  return " | ".join(" / ".join(part.texts) for turn in record.turns for part in turn.content if isinstance(part, Text))


def one_line(text: str) -> str:
  return " ".join(text.split())


def _tables(told: Mapping[str, Any]) -> dict[str, tuple[Sequence[str], Sequence[Sequence[str]]]]:
  """(header, rows) of each, by title."""
  splits = [
    (
      name,
      f"{s['records']:,}",
      f"{s['images']:,}",
      f"{len(s['shards']):,}",
      f"{sum(x['bytes'] for x in s['shards']):,}",
    )
    for name, s in told["splits"].items()
  ]
  left_out = [(reason, f"{count:,}") for reason, count in told["dropped"].items()]
  left_out += [("the same as another", f"{told['duplicates']:,}")] * bool(told["duplicates"])
  measures = told["statistics"]["measures"]
  header = ["", *next(iter(measures.values()), {})]
  measured = [(name, *(f"{value:,.0f}" for value in values.values())) for name, values in measures.items()]
  shapes = [(name, f"{count:,}") for name, count in told["statistics"]["shapes"].items()]
  return {
    "Records": (["split", "records", "images", "shards", "bytes"], splits),
    "Left out": (["reason", "rows"], left_out or [("nothing", "0")]),
    "Sizes": (header, measured),
    "Width to height": (["", "records"], shapes),
  }


def _drawn(prepared: Prepared) -> list[Record]:
  name = next(iter(prepared.splits))
  count = prepared.splits[name].records
  chosen = np.random.default_rng(0).choice(count, min(SHOWN, count), replace=False)
  return [prepared.read(name, int(i)) for i in np.sort(chosen)]


def _sheet(records: Sequence[Record]) -> str:
  return f'<div class="sheet">{"".join(map(_figure, records))}</div>'


def _figure(record: Record) -> str:
  text = words(record)
  text = text if len(text) <= CAPTION else text[:CAPTION] + "…"
  tags, sizes = [], []
  for encoded in record.images[:PICTURES]:
    thumbnail, (width, height) = _thumbnail(encoded)
    tags.append(image_tag(thumbnail, text))
    sizes.append(f"{width}×{height}")
  note = f"{escape(one_line(record.key))} {', '.join(sizes)}"
  return f"<figure>{''.join(tags)}<figcaption>{escape(text)}<small>{note}</small></figcaption></figure>"


def _thumbnail(encoded: bytes) -> tuple[np.ndarray, tuple[int, int]]:
  """(a small picture (H, W, 3), the width and height of the large one), as training would see it."""
  found = images.inspect(encoded)
  scale = min(1.0, SIDE / max(found.height, found.width))
  size = Size(max(1, round(found.height * scale)), max(1, round(found.width * scale)), pixels_per_token=1)
  return images.decode(encoded, size, "stretch", WHITE), (found.width, found.height)


def _write(page: Path, title: str, body: str):
  html = (
    f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
    f"<style>{STYLE}{SHEET}</style></head><body><h1>{escape(title)}</h1>{body}</body></html>"
  )
  with writing(page):
    write_whole(page, html.encode("utf-8", "replace"))
