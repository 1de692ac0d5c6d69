"""WebDataset: tar files whose members 0001.jpg and 0001.txt (or 0001.json) belong together by what is before the dot.

The key is a member's path up to the first dot of its name; what is behind, in lower case, is the field: jpg, jpeg, png
or webp for the picture, txt for the caption. The fields of a json are columns too. Members come in any order.
"""

import contextlib
import json
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

from omniimage.data.formats import inside, listing
from omniimage.data.formats.captions import Captions, listed
from omniimage.data.formats.format import Given, Row, Unit
from omniimage.data.formats.inside import MAX_BYTES, shown
from omniimage.data.formats.rows import row_of, split_in
from omniimage.data.formats.survey import Survey
from omniimage.data.records import BadRecord, Record, captioned
from omniimage.errors import UserError

TARS = (".tar", ".tar.gz")
IMAGE_FIELDS = ("jpg", "jpeg", "png", "webp", *(suffix[1:] for suffix in sorted(listing.PICTURES)))
TEXT_FIELDS = ("txt", "text", "caption", "cls")
SAMPLED = 100  # samples from which the columns are collected
# What reading a damaged tar raises.
DAMAGED = (tarfile.TarError, EOFError, ValueError)

Members = dict[str, tarfile.TarInfo]  # of one key, by field


def fits(survey: Survey) -> bool:
  return survey.tars


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
    try:
      with _opened(Path(self._root, shard)) as (tar, damage):
        samples, problems, cut = _index(tar)
        yield from (Row(shown(f"{shard}/{name}"), problem=problem) for name, problem in problems)
        for key, members in samples.items():
          yield row_of(f"{shard}/{key}", lambda key=key, members=members: self._record(tar, shard, key, members))
        if damage or cut:
          yield Row(shown(shard), problem=f"truncated: {shown(damage or cut)}; what could be read before counts")
    except BadRecord as error:
      yield Row(shown(shard), problem=shown(str(error)))

  def fingerprint(self) -> str:
    return listing.fingerprint(self._root, self._shards)

  def _record(self, tar: tarfile.TarFile, shard: str, key: str, members: Members) -> tuple[Record, str | None]:
    fields = _fields(tar, members)
    picture = next((field for field in self._image_fields if field in members), None)
    if picture is None:
      raise BadRecord(f"no picture: its members end in {listed(members)}; the name of a sample has no dots of its own")
    image = _content(tar, members[picture])
    if not image:
      raise BadRecord(f"{members[picture].name} is empty: it has 0 bytes")
    split = split_in(fields, self._given.split_column, self._splits[shard])
    return captioned(shown(f"{shard}/{key}"), self._captions.of(fields), image), split

  def _columns(self) -> list[str]:
    """Of the first samples. UserError where no shard can be read."""
    why = ""
    for shard in self._shards:
      try:
        with _opened(Path(self._root, shard)) as (tar, _):
          columns: dict[str, None] = {}
          for members in islice(_index(tar)[0].values(), SAMPLED):
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
    try:
      described = json.loads(_content(tar, members["json"]).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
      raise BadRecord(f"{members['json'].name} is no JSON: {error}") from None
    fields.update(described if isinstance(described, dict) else {"json": described})
  for field, member in members.items():
    if field in TEXT_FIELDS or field.endswith(".txt"):
      fields[field] = _content(tar, member)
  return fields


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
  if member.size > MAX_BYTES:
    raise BadRecord(f"{member.name} has {member.size} bytes; it may have {MAX_BYTES} at most")
  try:
    content = tar.extractfile(member).read()
  except (*DAMAGED, OSError) as error:
    raise BadRecord(f"truncated: {member.name} cannot be read: {error}") from None
  if len(content) != member.size:
    raise BadRecord(f"truncated: {member.name} has {len(content)} of {member.size} bytes")
  return content


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[tarfile.TarFile, str]]:
  """A tar, and what of a damaged .tar.gz could not be unpacked. BadRecord where it cannot be opened."""
  with contextlib.ExitStack() as stack:
    try:
      file: IO[bytes] = stack.enter_context(path.open("rb"))
      damage, zipped = "", file.read(2) == b"\x1f\x8b"
      file.seek(0)
      if zipped:  # members are read in any order, for which a gzip would be unpacked from its start again and again
        file, damage = _unpacked(file, stack.enter_context(tempfile.TemporaryFile()))
      tar = stack.enter_context(tarfile.open(fileobj=file, mode="r:", errors="surrogateescape"))
    except (*DAMAGED, OSError) as error:
      raise BadRecord(f"truncated: it cannot be read as a tar: {error}") from None
    yield tar, damage


def _unpacked(packed: IO[bytes], into: IO[bytes]) -> tuple[IO[bytes], str]:
  """A gzip's content, and why it ends early, if it does; unlike `gzip`, all that was unpacked until then is kept."""
  unzip, damage = zlib.decompressobj(wbits=31), "the gzip has no end"
  try:
    while block := packed.read(2**16):
      while block:
        into.write(unzip.decompress(block))
        block = unzip.unused_data.lstrip(b"\0")
        if unzip.eof and block:  # gzips may follow one another
          unzip = zlib.decompressobj(wbits=31)
    damage = "" if unzip.eof else damage
  except zlib.error as error:
    damage = str(error)
  into.seek(0)
  return into, damage


def _index(tar: tarfile.TarFile) -> tuple[Mapping[str, Members], list[tuple[str, str]], str]:
  """(the samples in the order of their first members, (name, problem) of members that are none, why the tar ends
  early, if it does)."""
  samples: dict[str, Members] = {}
  problems, cut = [], ""
  members = iter(tar)
  while True:
    try:
      member = next(members)
    except StopIteration:
      cut = _why_it_ends(tar)
      break
    except (*DAMAGED, OSError) as error:
      cut = str(error) or "it ends within a member"
      break
    try:
      _sort_in(samples, member)
    except BadRecord as error:
      problems.append((member.name, str(error)))
  return samples, problems, cut


def _why_it_ends(tar: tarfile.TarFile) -> str:
  """Empty at a tar's proper end, a block of zeros; `tarfile` also ends silently at a damaged or missing header."""
  tar.fileobj.seek(tar.offset)
  block = tar.fileobj.read(tarfile.BLOCKSIZE)
  if len(block) < tarfile.BLOCKSIZE:
    return "it has no end"
  return f"no tar header at byte {tar.offset}" if block.strip(b"\0") else ""


def _sort_in(samples: dict[str, Members], member: tarfile.TarInfo):
  """Puts a member to the others of its key. BadRecord where it is of none."""
  if member.isdir() or listing.is_hidden(member.name):
    return
  inside.reject_outside(member.name)
  if not member.isfile():
    raise BadRecord("a link or device in a tar is not read; pack the file itself: tar --dereference --hard-dereference")
  folder, slash, name = member.name.removeprefix("./").rpartition("/")
  stem, _, field = name.partition(".")
  members = samples.setdefault(folder + slash + stem, {})
  if field.lower() in members:
    raise BadRecord("a duplicate: the shard has this name twice; the first is read")
  members[field.lower()] = member
