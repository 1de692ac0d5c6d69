"""The formats that `launch.prepare` reads, by name. A new one is one file here and one row."""

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass

from omniimage.data.formats import conversations, edits, emoji, folder, parquet, scenes, text, tfds, webdataset
from omniimage.data.formats.format import Format, Given
from omniimage.data.formats.inside import shown
from omniimage.data.formats.survey import Survey, survey
from omniimage.errors import UserError

TRIED_ROWS = 1000  # of which one at least must have a caption
PREPARED = ("dataset.json", "features.json")  # what a prepared data set has


@dataclass(frozen=True)
class Kind:
  """A format of the table.

  Attributes:
    open: (source, given) → the source, opened. UserError where it can never give a record.
    fits: whether what was found in a source looks like this format.
    takes: the fields of `Given` that mean something to it.
  """

  open: Callable[[str, Given], Format]
  fits: Callable[[Survey], bool]
  takes: tuple[str, ...] = ()


COLUMNS = ("image_column", "caption_columns", "split_column")
FLAGS = {"caption_columns": "caption_column", "mapping": "map"}  # whose names differ from those of `Given`

FORMATS = {
  "folder": Kind(folder.open_folder, folder.fits, (*COLUMNS, "metadata")),
  "webdataset": Kind(webdataset.open_webdataset, webdataset.fits, COLUMNS),
  "parquet": Kind(parquet.open_parquet, parquet.fits, COLUMNS),
  "conversations": Kind(
    conversations.open_conversations, conversations.fits, ("image_column", "split_column", "metadata")
  ),
  "edits": Kind(edits.open_edits, edits.fits, ("split_column", "metadata")),
  "text": Kind(text.open_text, text.fits, ("caption_columns", "split_column")),
  "tfds": Kind(tfds.open_tfds, tfds.fits, ("image_column", "caption_columns", "mapping")),
  "scenes": Kind(scenes.open_scenes, scenes.fits),
  "emoji": Kind(emoji.open_emoji, emoji.fits),
}


def open_format(source: str, name: str | None, given: Given) -> tuple[str, Format]:
  """A source and the name of its format, guessed where none is given. UserError where that cannot be, where the source
  can never give a record, or where the first rows all lack a caption."""
  if name and name not in FORMATS:
    raise UserError(f"--format={name} is none of {', '.join(FORMATS)}")
  if all(os.path.exists(os.path.join(source, file)) for file in PREPARED):
    raise UserError(f"{source} is a prepared data set already: train on it, or give what it was made of")
  name = name or _guess(source, given)
  for field, value in vars(given).items():
    if value and field not in FORMATS[name].takes:
      raise UserError(
        f"--{FLAGS.get(field, field)} means nothing to {shown(source)}, which is read as {name}; leave it out"
      )
  opened = FORMATS[name].open(source, given)
  _require_captions(source, opened)
  return name, opened


def _guess(source: str, given: Given) -> str:
  found = survey(source, given)
  fitting = [name for name, kind in FORMATS.items() if kind.fits(found)]
  if len(fitting) == 1:
    return fitting[0]
  if not fitting and not found.suffixes and not os.path.exists(source):
    raise UserError(f"--source={shown(source)} is not there; give a folder, a file, scenes, emoji or tfds:NAME")
  if not fitting and (lists := found.of_kind("addresses")):
    raise UserError(
      f"--source={shown(source)}: {lists[0].name} has addresses, but the pictures are not there; download them first, "
      "with img2dataset for example"
    )
  what = f"looks like {' and '.join(fitting)}" if fitting else "looks like no format"
  if not fitting and ".json" in found.suffixes:
    raise UserError(
      f"--source={shown(source)} {what}: {found}; if a .json is a list of rows, write it as lines: "
      f"jq -c '.[]' FILE.json > FILE.jsonl; or say what it is with --format={'|'.join(FORMATS)}"
    )
  raise UserError(f"--source={shown(source)} {what}: {found}; say which with --format={'|'.join(fitting or FORMATS)}")


def _require_captions(source: str, opened: Format):
  """UserError where the first rows give no record, and that for want of captions; as a rule the first one is good."""
  tried = []
  for row in itertools.islice((row for unit in opened.units() for row in opened.rows(unit)), TRIED_ROWS):
    if row.record:
      return
    tried.append(row)
  silent = [row for row in tried if row.problem.startswith("no caption")]
  if len(silent) > len(tried) // 2:
    raise UserError(
      f"{shown(source)}: {silent[0].key}: {silent[0].problem}; nor has any other of its first {len(tried)} rows one; "
      "give --caption_column=NAME, or mend the source"
    )
