"""WebDataset: tar files whose members 0001.jpg and 0001.txt (or 0001.json) belong together by what is before the dot.

The key is a member's path up to the first dot of its name; what is behind, in lower case, is the field: jpg, jpeg, png
or webp for the picture, txt for the caption. The fields of a json are columns too. Members come in any order.
"""

import contextlib
import tarfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from omniimage.data.formats import listing
from omniimage.data.formats.captions import Captions, listed
from omniimage.data.formats.format import Given, Row, Unit
from omniimage.data.formats.inside import shown
from omniimage.data.formats.rows import split_in
from omniimage.data.formats.survey import Survey
from omniimage.data.formats.tars import TARS, Members, content, index, opened, read_json, rows
from omniimage.data.records import BadRecord, Record, captioned
from omniimage.errors import UserError

IMAGE_FIELDS = ("jpg", "jpeg", "png", "webp", *(suffix[1:] for suffix in sorted(listing.PICTURES)))
TEXT_FIELDS = ("txt", "text", "caption", "cls")
SAMPLED = 100  # samples from which the columns are collected


def fits(survey: Survey) -> bool:
  return survey.tars and not any(listing.suffix(table.name) in TARS for table in survey.of_kind("edits"))


def open_webdataset(source: str, given: Given) -> "WebDataset":
  """UserError where there are no tar files, none can be read, or a column is not there."""
  return WebDataset(*listing.files(source, TARS), given)


class WebDataset:
  """Units are shards."""

  def __init__(self, root: str, shards: Sequence[str], given: Given):
    self._root, self._shards, self._given = root, list(shards), given
    self._image_fields = (given.image_column.lower(),) if given.image_column else IMAGE_FIELDS
    columns = self._columns()
    where = f"the first samples of {root}"
    self._captions = Captions(given.caption_columns, columns, where)
    if given.image_column and given.image_column.lower() not in columns:
      raise UserError(f"{where} have no {given.image_column!r}; they have {listed(columns)}; give --image_column=NAME")
    self._splits = listing.splits_of(shards)

  def found(self) -> str:
    return f"{len(self._shards)} tar shards, captions from {self._captions.found}"

  def units(self) -> Sequence[Unit]:
    return [Unit(shown(shard), shard) for shard in self._shards]

  def rows(self, unit: Unit) -> Iterator[Row]:
    shard = unit.content
    yield from rows(self._root, shard, lambda *sample: self._record(shard, *sample))

  def fingerprint(self) -> str:
    return listing.fingerprint(self._root, self._shards)

  def _record(self, shard: str, tar: tarfile.TarFile, key: str, members: Members) -> tuple[Record, str | None]:
    fields = _fields(tar, members)
    picture = next((field for field in self._image_fields if field in members), None)
    if picture is None:
      raise BadRecord(f"no picture: its members end in {listed(members)}; the name of a sample has no dots of its own")
    image = content(tar, members[picture])
    if not image:
      raise BadRecord(f"{members[picture].name} is empty: it has 0 bytes")
    split = split_in(fields, self._given.split_column, self._splits[shard])
    return captioned(shown(key), self._captions.of(fields), image), split

  def _columns(self) -> list[str]:
    """Of the first samples. UserError where no shard can be read."""
    why = ""
    for shard in self._shards:
      try:
        with opened(Path(self._root, shard)) as (tar, _):
          columns: dict[str, None] = {}
          for members in islice(index(tar)[0].values(), SAMPLED):
            columns.update(dict.fromkeys(members))
            with contextlib.suppress(BadRecord):
              columns.update(dict.fromkeys(_fields(tar, members)))
          if columns:
            return list(columns)
      except BadRecord as error:
        why = why or f": {error}"
    raise UserError(f"{self._root} has {len(self._shards)} tar files, but no sample can be read{why}")


def _fields(tar: tarfile.TarFile, members: Members) -> dict[str, Any]:
  """What a sample says: its texts and the fields of its json. BadRecord where the json is none."""
  fields: dict[str, Any] = {}
  if "json" in members:
    described = read_json(tar, members["json"])
    fields.update(described if isinstance(described, dict) else {"json": described})
  for field, member in members.items():
    if field in TEXT_FIELDS or field.endswith(".txt"):
      fields[field] = content(tar, member)
  return fields
