"""A look at a source, from which its format is guessed."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from omniimage.data.formats import listing, tars
from omniimage.data.formats.captions import DEFAULT_COLUMNS, listed
from omniimage.data.formats.format import Given
from omniimage.data.formats.recipes import recipe_of
from omniimage.data.formats.tables import TABLES, JsonLines, Parquet, open_table
from omniimage.errors import UserError

TABLES_READ = 20  # whose columns are looked at, the first ones
# Columns of a list that name a picture, or hold it; the first that there is.
IMAGE_COLUMNS = ("file_name", "image", "jpg", "jpeg", "png", "webp", "file", "filename", "image_path", "img", "path")
CONVERSATIONS = ("conversations", "messages")
ADDRESSES = ("url", "image_url")  # of pictures that are still to be downloaded


@dataclass(frozen=True)
class Summary:
  """A list of rows.

  Attributes:
    name: relative to the source.
    columns: empty where it cannot be read.
    kind: "conversations"; "edits": of a known set of them; "images": it holds them; "list": it names them;
      "addresses": where on the web they are; "text"; "": none of these.
    image: the column of a picture, if there is one.
  """

  name: str
  columns: tuple[str, ...]
  kind: str
  image: str


@dataclass(frozen=True)
class Survey:
  """What the files of a source are.

  Attributes:
    suffixes: in lower case.
    tables: the lists of rows, and the first tar if it has edits.
  """

  source: str
  suffixes: frozenset[str]
  tables: tuple[Summary, ...]

  @property
  def pictures(self) -> bool:
    return bool(self.suffixes & listing.PICTURES)

  @property
  def tars(self) -> bool:
    return bool(self.suffixes & {".tar", ".tar.gz"})

  @property
  def tfds(self) -> bool:
    return any(suffix.startswith((".array_record-", ".tfrecord-")) for suffix in self.suffixes)

  def of_kind(self, kind: str) -> list[Summary]:
    return [table for table in self.tables if table.kind == kind]

  def __str__(self) -> str:
    if not self.suffixes:
      return "no files"
    counted = ", ".join(f"*{suffix}" if suffix else "files without an ending" for suffix in sorted(self.suffixes))
    columns = "".join(f"; {table.name} has {', '.join(table.columns[:12])}" for table in self.tables[:2])
    return counted + columns


def survey(source: str, given: Given) -> Survey:
  if os.path.isdir(source):
    root, names = source, list(listing.walk(source))
  else:
    paths = [source] if os.path.exists(source) else listing.expand(source)
    root, names = "", [path for path in paths if os.path.isfile(path)]
  tables = [name for name in names if listing.suffix(name) in TABLES]
  tables = [given.metadata] if given.metadata else tables
  summaries = tuple(summary(str(Path(root, name)), name, given) for name in tables[:TABLES_READ])
  if not given.metadata:
    summaries += _of_tar(root, [name for name in names if listing.suffix(name) in tars.TARS], given)
  return Survey(source, frozenset(map(listing.suffix, names)), summaries)


def _of_tar(root: str, names: Sequence[str], given: Given) -> tuple[Summary, ...]:
  """Of the first one, if it has edits."""
  columns = tuple(tars.columns(str(Path(root, names[0])))) if names else ()
  return (Summary(names[0], columns, "edits", ""),) if _has_edits(columns, given) else ()


def summary(path: str, name: str, given: Given) -> Summary:
  try:
    table = open_table(path)
    columns = tuple(table.columns())
  except UserError:
    return Summary(name, (), "", "")
  image = image_column(columns, given)
  if isinstance(table, JsonLines | Parquet) and any(column in columns for column in CONVERSATIONS):
    kind = "conversations"
  elif _has_edits(columns, given):
    kind = "edits"
  elif isinstance(table, Parquet) and image and table.holds_bytes(image):
    kind = "images"
  elif image:
    kind = "list"
  elif any(column.lower() in ADDRESSES for column in columns):
    kind = "addresses"
  else:
    said = given.caption_columns or any(column in columns for column in DEFAULT_COLUMNS)
    kind = "text" if said else ""
  return Summary(name, columns, kind, image)


def _has_edits(columns: Collection[str], given: Given) -> bool:
  """Where a picture or a caption is asked for by its column, it is captioned pictures that are wanted."""
  return bool(recipe_of(columns)) and not given.image_column and not given.caption_columns


def image_column(columns: Collection[str], given: Given) -> str:
  """The column of a picture; empty where there is none."""
  return next((name for name in _wanted(given) if name in columns), "")


def require_image_column(columns: Collection[str], given: Given, where: str) -> str:
  """UserError where there is no column of a picture."""
  found = image_column(columns, given)
  if not found:
    raise UserError(
      f"{where} has no {_wanted(given)[0]!r} for the picture; it has {listed(columns)}; give --image_column=NAME"
    )
  return found


def _wanted(given: Given) -> tuple[str, ...]:
  return (given.image_column,) if given.image_column else IMAGE_COLUMNS
