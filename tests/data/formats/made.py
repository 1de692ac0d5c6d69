"""Sources that the tests of formats make, and what is read of them."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from omniimage.data.formats import open_format
from omniimage.data.formats.format import Format, Given, Row
from omniimage.data.records import Text, to_bytes


def picture(red: int = 0, kind: str = "PNG") -> bytes:
  """A small one, unlike those of other reds."""
  file = io.BytesIO()
  Image.new("RGB", (4, 4), (red, 0, 0)).save(file, kind)
  return file.getvalue()


def write(root: Path, files: Mapping[str, bytes | str]) -> str:
  """Files below a folder; its path."""
  for name, content in files.items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
  return str(root)


def tar(path: Path, members: Sequence[tuple[str, bytes | str]], mode: str = "w") -> str:
  """A tar with these members, in this order; its path."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with tarfile.open(path, mode) as file:
    for name, content in members:
      content = content.encode() if isinstance(content, str) else content
      member = tarfile.TarInfo(name)
      member.size = len(content)
      file.addfile(member, io.BytesIO(content))
  return str(path)


def read(source, name: str | None = None, **given) -> list[Row]:
  """All rows of a source, each of which can be stored."""
  rows = rows_of(open_format(str(source), name, Given(**given))[1])
  for row in rows:
    assert (row.record is None) == bool(row.problem)
    assert "\n" not in row.key + row.problem
    (row.key + row.problem).encode()
    if row.record:
      to_bytes(row.record)
  return rows


def rows_of(opened: Format) -> list[Row]:
  return [row for unit in opened.units() for row in opened.rows(unit)]


def captions(rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
  """Of the rows that are captioned pictures, by key."""
  return {row.key: row.record.turns[0].content[0].texts for row in rows if row.record}


def problems(rows: Sequence[Row]) -> dict[str, str]:
  return {row.key: row.problem for row in rows if row.problem}


def said(row: Row) -> list[tuple[str, list[str]]]:
  """(role, texts and "<i>" for pictures) of each turn."""
  return [
    (turn.role, [part.texts[0] if isinstance(part, Text) else f"<{part.index}>" for part in turn.content])
    for turn in row.record.turns
  ]
