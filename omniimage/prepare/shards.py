"""Shards: what is kept of the parts, in their order, a split at a time."""

import functools
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from omniimage.data.prepared import INDEX, Shard, sha256
from omniimage.errors import UserError
from omniimage.files import finish, write_whole, writing_whole
from omniimage.paths import writing
from omniimage.prepare.parts import ROW, Part
from omniimage.prepare.tasks import Tell

OPTIONS = "group_size:1"  # each record by itself, so that any of them is read alone


@dataclass(frozen=True, eq=False)
class Table:
  """All records of all parts, in order.

  Attributes:
    rows: (n,) of parts.ROW.
    parts: (n,) the number of each one's part.
  """

  rows: np.ndarray
  parts: np.ndarray


def read(parts: Sequence[Part]) -> Table:
  """UserError where a table of a part is damaged."""
  tables = [np.zeros(0, ROW)]
  for part in parts:
    try:
      tables.append(np.load(part.table))
    except (OSError, ValueError, EOFError) as error:
      raise _changed(part.table, error) from None
  numbers = np.array([part.number for part in parts], np.int64)
  return Table(np.concatenate(tables), np.repeat(numbers, np.array([len(table) for table in tables[1:]], np.int64)))


def originals(rows: np.ndarray) -> np.ndarray:
  """(n,) int64: for each record the one that is kept of those that are the same in pictures and turns: the first.

  Of such as are in both splits one for tests is kept, so that nothing is trained on that is tested on.
  """
  order = np.lexsort((~rows["test"], rows["content"][:, 1], rows["content"][:, 0]))  # stable
  content = rows["content"][order]
  new = np.ones(len(rows), bool)
  new[1:] = (content[1:] != content[:-1]).any(axis=1)
  kept = np.empty(len(rows), np.int64)
  kept[order] = order[np.maximum.accumulate(np.where(new, np.arange(len(rows)), 0))]
  return kept


def duplicates(folder: Path, table: Table, kept: np.ndarray) -> Iterator[tuple[str, str]]:
  """The keys of each record that is not kept and of the one that is."""
  starts = np.searchsorted(table.parts, table.parts)  # where each one's part begins

  @functools.lru_cache(maxsize=64)
  def keys(part: int) -> list[str]:
    return [json.loads(line) for line in Part(folder, part).keys.read_bytes().splitlines()]

  for again in np.flatnonzero(kept != np.arange(len(kept))).tolist():
    yield tuple(keys(int(table.parts[i]))[i - starts[i]] for i in (again, kept[again]))


@dataclass(frozen=True, eq=False)
class ShardTask:
  """Records to put into a file: the part, the offset and the length of each."""

  name: str  # of the file
  parts: np.ndarray
  offsets: np.ndarray
  lengths: np.ndarray


def plan(table: Table, chosen: np.ndarray, prefix: str, shard_bytes: int) -> list[ShardTask]:
  """The shards of a split, of about as many bytes each.

  Args:
    chosen: (k,) its records, as indices of the table's rows.
    prefix: of the files: NAME-SPLIT.
  """
  rows, parts = table.rows[chosen], table.parts[chosen]
  ends = np.cumsum(rows["length"], dtype=np.int64)
  shards = max(1, round(int(ends[-1]) / shard_bytes)) if len(ends) else 0
  place = (ends - 1) * shards // max(int(ends[-1]), 1) if shards else ends
  cuts = [0, *(np.flatnonzero(np.diff(place)) + 1).tolist(), len(rows)] if shards else [0]
  return [
    ShardTask(
      f"{prefix}.array_record-{i:05d}-of-{len(cuts) - 1:05d}",
      parts[start:stop], rows["offset"][start:stop], rows["length"][start:stop],
    )
    for i, (start, stop) in enumerate(itertools.pairwise(cuts))
  ]  # fmt: skip


@dataclass(frozen=True)
class ShardWriter:
  """Writes a shard, and what it is into the folder of the parts, by which it is known to be finished."""

  folder: Path  # of the parts
  out: Path
  options: ClassVar[str] = OPTIONS

  def __call__(self, task: ShardTask, tell: Tell):
    if self.finished(task) is not None:
      return
    path = self.out / task.name
    unfinished = path.with_name(f"{path.name}.tmp")
    with writing(path):
      count = self._write(unfinished, task, tell)
      shard = Shard(task.name, count, unfinished.stat().st_size, sha256(unfinished))
      finish(unfinished, path)
      write_whole(self._note(task), json.dumps(vars(shard)).encode())

  def finished(self, task: ShardTask) -> Shard | None:
    """What was written; None before it is."""
    try:
      shard = Shard(**json.loads(self._note(task).read_bytes()))
      return shard if (self.out / task.name).stat().st_size == shard.bytes else None
    except (FileNotFoundError, ValueError, TypeError):
      return None

  def records(self, task: ShardTask) -> Iterator[bytes]:
    """In order, as they are stored."""
    return _stored(self.folder, task)

  def _write(self, path: Path, task: ShardTask, tell: Tell) -> int:
    """Returns how many records there are."""
    writer, count = None, 0
    try:
      writer = ArrayRecordWriter(str(path), self.options)
      for stored in self.records(task):
        writer.write(stored)
        count += 1
        tell(1)
      writer.close()
    except RuntimeError as error:  # of C++: a disk that is full
      path.unlink(missing_ok=True)
      reason = str(error).partition(";")[0]
      raise UserError(f"{path} cannot be written: {reason}; mend that and run the same again") from None
    return count

  def _note(self, task: ShardTask) -> Path:
    return self.folder / f"{task.name}.json"


def _stored(folder: Path, task: ShardTask) -> Iterator[bytes]:
  cuts = [0, *(np.flatnonzero(np.diff(task.parts)) + 1).tolist(), len(task.parts)]
  for start, stop in itertools.pairwise(cuts):
    path = Part(folder, int(task.parts[start])).records
    try:
      with path.open("rb") as file:
        for i in range(start, stop):
          file.seek(int(task.offsets[i]))
          stored = file.read(int(task.lengths[i]))
          if len(stored) != task.lengths[i]:
            raise _changed(path, "it is cut short")
          yield stored
    except FileNotFoundError as error:
      raise _changed(path, error.strerror) from None


def _changed(path: Path, problem: object) -> UserError:
  return UserError(f"{path}: {problem}; what was begun has been changed: delete {path.parent.parent} and begin anew")


def write_index(path: Path, rows: np.ndarray):
  """The rows of INDEX of a split's records."""
  index = np.empty(len(rows), INDEX)
  for name in INDEX.names:
    index[name] = rows[name]
  with writing(path), writing_whole(path) as file:
    np.save(file, index)


def emptied(folder: Path, tasks: Sequence[ShardTask]) -> Callable[[ShardTask], None]:
  """To be called with each shard that is finished: the records of a part that no other needs are deleted, so that the
  disk need not hold all of them twice."""
  needed_by = {}
  for task in tasks:
    for number in np.unique(task.parts).tolist():
      needed_by[number] = needed_by.get(number, 0) + 1

  def done(task: ShardTask):
    for number in np.unique(task.parts).tolist():
      needed_by[number] -= 1
      if needed_by[number] == 0:
        Part(folder, number).records.unlink(missing_ok=True)

  return done
