"""Tar files of samples, as WebDataset packs them: members that are called the same up to the first dot belong together.

The key of a sample is a member's path up to the first dot of its name; what is behind, in lower case, is the field:
"a/0001" and "src_img.jpg" of "a/0001.src_img.jpg". What is damaged costs what lies behind it, and is told.
"""

import contextlib
import json
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

from omniimage.data.formats import inside, listing
from omniimage.data.formats.format import Row
from omniimage.data.formats.inside import MAX_BYTES, shown
from omniimage.data.formats.rows import row_of
from omniimage.data.records import BadRecord, Record

TARS = (".tar", ".tar.gz")
# What reading a damaged tar raises.
DAMAGED = (tarfile.TarError, EOFError, ValueError)

SAMPLED_MEMBERS = 400  # the first ones, of which the columns are collected

Members = dict[str, tarfile.TarInfo]  # of one key, by field


def rows(
  root: str, shard: str, record: Callable[[tarfile.TarFile, str, Members], tuple[Record, str | None]]
) -> Iterator[Row]:
  """What `record` makes of each sample, given its key in the data set; and what of the shard is none, or damaged."""
  try:
    with opened(Path(root, shard)) as (tar, damage):
      samples, problems, cut = index(tar)
      yield from (Row(shown(f"{shard}/{name}"), problem=problem) for name, problem in problems)
      for name, members in samples.items():
        key = f"{shard}/{name}"
        yield row_of(key, lambda key=key, members=members: record(tar, key, members))
      if damage or cut:
        yield Row(shown(shard), problem=f"truncated: {shown(damage or cut)}; what could be read before counts")
  except BadRecord as error:
    yield Row(shown(shard), problem=shown(str(error)))


def columns(path: str) -> list[str]:
  """Of the first samples, as `columns_of` names them; none where it cannot be read. Looks at its beginning alone."""
  found: dict[str, None] = {}
  with (
    contextlib.suppress(*DAMAGED, zlib.error, OSError, BadRecord),
    tarfile.open(path, "r|*", errors="surrogateescape") as tar,
  ):
    for member in islice(tar, SAMPLED_MEMBERS):
      samples: dict[str, Members] = {}
      sort_in(samples, member)
      for members in samples.values():
        found.update(dict.fromkeys(columns_of(tar, members)))
  return list(found)


def columns_of(tar: tarfile.TarFile, members: Members) -> dict[str, Any]:
  """What a sample has: each member's bytes by its field, and by the field without its ending, "src_img" of
  "src_img.jpg"; a json is read, and one without a name of its own has columns. BadRecord where that cannot be."""
  columns: dict[str, Any] = {}
  for field, member in members.items():
    name, _, ending = field.rpartition(".")
    if ending != "json":
      columns[field] = columns[name or field] = content(tar, member)
      continue
    value = read_json(tar, member)
    columns.update({name: value} if name else value if isinstance(value, dict) else {"json": value})
  return columns


def read_json(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
  """BadRecord where it is none."""
  try:
    return json.loads(content(tar, member).decode("utf-8-sig"))
  except (ValueError, RecursionError) as error:
    raise BadRecord(f"{member.name} is no JSON: {error}") from None


def content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
  """Of a member. BadRecord where it is too large or cannot be read to its end."""
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
def opened(path: Path) -> Iterator[tuple[tarfile.TarFile, str]]:
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


def index(tar: tarfile.TarFile) -> tuple[Mapping[str, Members], list[tuple[str, str]], str]:
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
      sort_in(samples, member)
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


def sort_in(samples: dict[str, Members], member: tarfile.TarInfo):
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
