"""A prepared data set: what `launch.prepare` has made of someone's pictures, as training reads it.

A folder of

  dataset.json                            what is in it; written last, so that without it the folder is unfinished
  NAME-SPLIT.array_record-00000-of-00004  shards of records (omniimage/data/records.py), each read by its number
  index-SPLIT.npy                         a row of INDEX a record, in their order: what packing and buckets ask for
  features.json, dataset_info.json        what TFDS needs to read the shards too

and pages for people. Opening it reads dataset.json and looks at the sizes of the files, whatever the number of records.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from tqdm import tqdm

from omniimage.commands import command
from omniimage.data.records import BadRecord, Record, Text, Turn, from_bytes
from omniimage.errors import UserError
from omniimage.files import writing_whole

FORMAT = 1  # of the folder; a newer one is refused
DESCRIPTION = "dataset.json"
PARTS = "parts"  # the folder of what is not finished
SPLITS = ("train", "test")
INDEX = np.dtype([
  ("text_tokens", "<i4"),  # of all texts under the built-in vocabulary, the longest alternative of each
  ("text_bytes", "<i4"),  # the same in bytes of UTF-8
  ("images", "<u2"),
  ("height", "<u4"),  # pixels, upright, of the last picture that the assistant shows, else of the last one; 0 without
  ("width", "<u4"),
  ("turn_tokens", "<i4"),  # that begin and end its turns
])  # fmt: skip
BLOCK = 256  # records that are read at a time where all are


class TextTokenizer(Protocol):
  """Of a vocabulary. Its fingerprint is that of its file, or empty."""

  fingerprint: str

  def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True)
class Shard:
  file: str
  records: int
  bytes: int
  sha256: str


@dataclass(frozen=True)
class Split:
  records: int
  images: int
  shards: tuple[Shard, ...]
  index: str  # file
  index_sha256: str


@dataclass(frozen=True)
class _Instruction:
  """A whole shard, as ArrayRecordDataSource takes it without opening it."""

  filename: str
  take: int
  examples_in_shard: int
  skip: int = 0


class Prepared:
  """A folder that has been opened. Threads may share it, and worker processes get a copy that opens its files again.

  Attributes:
    path: of the folder.
    description: dataset.json.
    splits: those that hold records, by name.
    fingerprint: of the content of all records and their order.
  """

  def __init__(self, path: Path, description: Mapping[str, Any]):
    self.path, self.description = path, description
    self.splits = {name: _split(split) for name, split in description["splits"].items()}
    sums = [
      [name, split.index_sha256, *(shard.sha256 for shard in split.shards)] for name, split in self.splits.items()
    ]
    self.fingerprint = hashlib.sha256(json.dumps(sums).encode()).hexdigest()
    self._sources, self._indices = {}, {}

  def __reduce__(self):
    return Prepared, (self.path, self.description)

  @classmethod
  def open(cls, path: Path) -> "Prepared":
    """UserError where there is none, or it is unfinished, of a newer format, or its files are not as they were made."""
    description = _description(path)
    try:
      prepared = cls(path, description)
    except (KeyError, TypeError, AttributeError) as error:
      raise UserError(f"{path / DESCRIPTION} is damaged ({error!r}); prepare the data set again") from None
    for name, split in prepared.splits.items():
      for shard in split.shards:
        _check_size(path / shard.file, shard.bytes)
      if len(prepared.index(name)) != split.records or sum(shard.records for shard in split.shards) != split.records:
        raise UserError(f"{path / split.index} is not of {split.records:,} records; prepare the data set again")
    return prepared

  def index(self, split: str) -> np.ndarray:
    """(records,) of INDEX, which stays on disk until it is looked at."""
    if split not in self._indices:
      file = self.path / self._of(split).index
      try:
        index = np.load(file, mmap_mode="r")
      except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{file} cannot be read: {error}; copy it again, or prepare the data set again") from None
      if index.dtype != INDEX or index.ndim != 1:
        raise UserError(f"{file} is no index of records; prepare the data set again")
      self._indices[split] = index
    return self._indices[split]

  def shards(self, split: str) -> tuple[Shard, ...]:
    return self._of(split).shards

  def read(self, split: str, index: int) -> Record:
    """A record by its number. BadRecord where what is stored there is none."""
    return from_bytes(self._stored(split, [index])[0])

  def text_tokens(self, split: str, text_tokenizer: TextTokenizer) -> np.ndarray:
    """(records,) int32: tokens of all texts of each record, an upper bound over their alternatives.

    For a vocabulary that is not the built-in one all records are read, once: the counts are kept beside the shards.
    """
    if text_tokenizer.fingerprint == self.description["vocabulary"]:
      return self.index(split)["text_tokens"]
    file = self.path / f"lengths-{text_tokenizer.fingerprint[:16]}-{split}.npy"
    if text_tokenizer.fingerprint and (kept := _kept(file, self._of(split).records)) is not None:
      return kept
    counts = self._count(split, text_tokenizer)
    if text_tokenizer.fingerprint:
      try:
        with writing_whole(file) as out:
          np.save(out, counts)
      except OSError:  # the folder is read-only, or another process has just kept them
        pass
    return counts

  def verify(self):
    """UserError where the content of a file is not what was written. Reads all of them."""
    files = [(split.index, split.index_sha256) for split in self.splits.values()]
    files += [(shard.file, shard.sha256) for split in self.splits.values() for shard in split.shards]
    with ThreadPoolExecutor() as pool:
      found = list(pool.map(sha256, [self.path / file for file, _ in files]))
    for (file, expected), actual in zip(files, found):
      if actual != expected:
        raise UserError(f"{self.path / file} is damaged: its checksum differs; copy it again, or prepare it again")

  def _of(self, split: str) -> Split:
    if split not in self.splits:
      raise UserError(f"{self.path} has no records of the split {split!r}; it has {', '.join(self.splits)}")
    return self.splits[split]

  def _stored(self, split: str, indices: Sequence[int]) -> Sequence[bytes]:
    """BadRecord where a file cannot be read there."""
    records = self._of(split).records
    if wrong := [index for index in indices if not 0 <= index < records]:
      raise IndexError(f"record {wrong[0]} of {records:,} of {split}")
    try:
      source = self._source(split)
      return [source[indices[0]]] if len(indices) == 1 else source.__getitems__(indices)
    except Exception as error:  # of C++
      raise BadRecord(f"{split} record {indices[0]} of {self.path} cannot be read: {error}") from None

  def _source(self, split: str) -> ArrayRecordDataSource:
    if split not in self._sources:
      shards = [_Instruction(str(self.path / s.file), s.records, s.records) for s in self._of(split).shards]
      self._sources[split] = ArrayRecordDataSource(shards)
    return self._sources[split]

  def _count(self, split: str, text_tokenizer: TextTokenizer) -> np.ndarray:
    records = self._of(split).records
    counts = np.zeros(records, np.int32)
    print(f"{self.path}: counts the tokens of its texts under this vocabulary, once", file=sys.stderr, flush=True)
    with tqdm(total=records, unit="record", disable=not sys.stderr.isatty()) as bar:
      for start in range(0, records, BLOCK):
        indices = range(start, min(start + BLOCK, records))
        for index, stored in zip(indices, self._stored(split, indices)):
          counts[index] = count_tokens(from_bytes(stored).turns, text_tokenizer)
        bar.update(len(indices))
    return counts


def count_tokens(turns: Sequence[Turn], text_tokenizer: TextTokenizer) -> int:
  """Of all texts, the longest alternative of each."""
  texts = [part.texts for turn in turns for part in turn.content if isinstance(part, Text)]
  return sum(max(len(text_tokenizer.encode(text)) for text in alternatives) for alternatives in texts)


def sha256(file: Path) -> str:
  """Of a file's content. UserError where it cannot be read."""
  try:
    with file.open("rb") as opened:
      return hashlib.file_digest(opened, "sha256").hexdigest()
  except OSError as error:
    raise UserError(f"{file} cannot be read: {error.strerror}; copy it again, or prepare the data set again") from None


def _description(path: Path) -> Mapping[str, Any]:
  """dataset.json. UserError where there is none that this version can read."""
  again = f"make one with {command('prepare')} --source=YOUR_PICTURES --out={path}"
  if not path.is_dir():
    raise UserError(f"{path} is no prepared data set: there is no such folder; {again}")
  try:
    description = json.loads((path / DESCRIPTION).read_bytes())
  except FileNotFoundError:
    if (path / PARTS).exists():
      raise UserError(
        f"{path} is not finished; run the same launch.prepare again, it goes on where it stopped"
      ) from None
    raise UserError(
      f"{path} is no prepared data set: it has no {DESCRIPTION}; make one of it with {command('prepare')} "
      f"--source={path} --out=ANOTHER_FOLDER"
    ) from None
  except (OSError, ValueError) as error:
    raise UserError(f"{path / DESCRIPTION} cannot be read: {error}; prepare the data set again") from None
  number = description.get("format") if isinstance(description, dict) else None
  if type(number) is not int or not 1 <= number <= FORMAT:
    raise UserError(
      f"{path / DESCRIPTION} is of format {number!r}, and this version reads up to {FORMAT}; "
      "install a newer omniimage, or prepare the data set again"
    )
  return description


def _split(stored: Mapping[str, Any]) -> Split:
  shards = tuple(Shard(s["file"], s["records"], s["bytes"], s["sha256"]) for s in stored["shards"])
  return Split(stored["records"], stored["images"], shards, stored["index"]["file"], stored["index"]["sha256"])


def _check_size(file: Path, expected: int):
  try:
    size = file.stat().st_size
  except OSError as error:
    raise UserError(f"{file} cannot be read: {error.strerror}; copy it again, or prepare the data set again") from None
  if size != expected:
    raise UserError(f"{file} has {size:,} bytes, not {expected:,}; copy it again, or prepare the data set again")


def _kept(file: Path, records: int) -> np.ndarray | None:
  """Counts of before, if they are whole."""
  try:
    counts = np.load(file, mmap_mode="r")
  except (OSError, ValueError, EOFError):
    return None
  return counts if counts.shape == (records,) and counts.dtype == np.int32 else None
