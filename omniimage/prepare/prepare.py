"""The order of it: what `launch.prepare` does."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from omniimage.data import formats, prepared
from omniimage.data.formats.format import Format, Given
from omniimage.data.prepared import SPLITS, Prepared, Shard, Split
from omniimage.errors import UserError
from omniimage.files import write_whole, writing_whole
from omniimage.paths import writing
from omniimage.prepare import beam, output, pages, parts, pool, preview, shards, statistics, tfds_files
from omniimage.prepare.parts import Converter, Part, UnitTask
from omniimage.prepare.progress import Progress
from omniimage.prepare.tasks import Task, Work

SHARD_BYTES = 256 * 2**20
MANY_DROPPED = 0.1  # share of the rows, above which a person is warned
NAMED = 10  # reasons on the terminal

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
  """What is asked for, but for `workers`, `runner` and its options a part of what the data set is.

  Attributes:
    source: a path or a name.
    format: of omniimage.data.formats; None: to be guessed.
    held_out: share of the records that are for tests, where the source does not say which.
    runner: of Apache Beam; empty: processes of this machine.
  """

  source: str
  out: Path
  format: str | None = None
  given: Given = field(default_factory=Given)
  held_out: float = 0.05
  licence: str = ""
  name: str = ""
  shard_bytes: int = SHARD_BYTES
  workers: int = 1
  runner: str = ""
  runner_options: Sequence[str] = ()

  def identity(self) -> dict[str, Any]:
    """What the content of the folder depends on, by the names of the flags."""
    given = {**asdict(self.given), "caption_columns": list(self.given.caption_columns)}
    names = {"caption_columns": "caption_column", "mapping": "map"}
    given = {
      names.get(name, name): dict(value) if isinstance(value, Mapping) else value for name, value in given.items()
    }
    own = {name: getattr(self, name) for name in ("source", "format", "held_out", "licence", "name", "shard_bytes")}
    return {**own, **given}


def prepare(request: Request, say: Say) -> Prepared:
  """Makes the data set, or finishes one that was begun. Says how it goes, a line at a time.

  Raises:
    UserError: where the source or the folder cannot be used, or something goes wrong that a person can mend. What was
      done is kept: the same request goes on.
  """
  identity = request.identity()
  output.check(request.out, Path(request.source), identity)
  if (done := output.complete(request.out, identity, say)) is not None:
    return done
  name, source = formats.open_format(request.source, request.format, request.given)
  with output.taken(request.out) as folder:
    if (done := output.complete(request.out, identity, say)) is not None:  # by another process, a moment ago
      return done
    say(f"{name}: {source.found()}")
    units = [UnitTask(number, unit) for number, unit in enumerate(source.units())]
    preview.show(source, [task.unit for task in units], request.out / "first_pairs.html", say)
    output.begin(request.out, identity, source.fingerprint())
    _convert(request, source, folder, units, say)
    description = _assemble(request, name, folder, len(units), say)
    finished = _finish(request.out, description)
  output.clear(request.out)
  for line in statistics.lines(description):
    say(line)
  say(f"complete: {request.out}\nreport: {request.out / 'report.html'}")
  return finished


def _convert(request: Request, source: Format, folder: Path, units: Sequence[UnitTask], say: Say):
  """The parts of all units."""
  summaries = {task.number: Part(folder, task.number).summary() for task in units}
  left = [task for task in units if summaries[task.number] is None]
  if len(left) < len(units):
    say(f"{len(units) - len(left):,} of {len(units):,} parts are there already")
  done_rows = sum(summary["rows"] for summary in summaries.values() if summary)
  known = all(task.unit.rows for task in left)
  rows = done_rows + sum(task.unit.rows for task in left) if known else 0
  work = Converter(source, folder, request.held_out)
  with Progress("reading", rows, done_rows, len(units), len(units) - len(left)) as progress:
    _run(request, work, left, progress, progress.done)


def _run(request: Request, work: Work, tasks: Sequence[Task], progress: Progress, done: Callable[[Task], None]):
  if request.runner:
    beam.run(work, tasks, request.runner, request.runner_options)
    for task in tasks:
      done(task)
  else:
    pool.run(work, tasks, request.workers, progress.tell, done)


def _assemble(request: Request, format_name: str, folder: Path, count: int, say: Say) -> dict[str, Any]:
  """Shards and indices of what is kept. Returns dataset.json."""
  all_parts = [Part(folder, number) for number in range(count)]
  table = shards.read(all_parts)
  kept = shards.originals(table.rows)
  is_kept = kept == np.arange(len(kept))
  dropped = _list_dropped(all_parts, table, kept, request.out / "dropped.jsonl")
  _say_dropped(dropped, len(table.rows), int((~is_kept).sum()), request.out, say)
  chosen = {name: np.flatnonzero(is_kept & (table.rows["test"] == (name == "test"))) for name in SPLITS}
  _check_splits(chosen, request, dropped, say)
  name = request.name or _name_of(request.source)
  chosen = {split: indices for split, indices in chosen.items() if len(indices)}
  splits = _write_splits(request, folder, table, chosen, name)
  tfds_files.write(request.out, name, splits, request.source, request.licence)
  return {
    "format": prepared.FORMAT,
    "name": name,
    "source": request.source,
    "source_format": format_name,
    "licence": request.licence,
    "vocabulary": parts.builtin_vocabulary().fingerprint,
    "splits": {split: _described(written) for split, written in splits.items()},
    "dropped": dict(dropped.most_common()),
    "duplicates": int((~is_kept).sum()),
    "statistics": statistics.of(table.rows[is_kept]),
    "request": request.identity(),
  }


def _write_splits(
  request: Request, folder: Path, table: shards.Table, chosen: Mapping[str, np.ndarray], name: str
) -> dict[str, Split]:
  plans = {
    split: shards.plan(table, indices, f"{name}-{split}", request.shard_bytes) for split, indices in chosen.items()
  }
  writer = shards.ShardWriter(folder, request.out)
  # Records for tests are of all parts. They go first: then the parts can be deleted one after another.
  tasks = list(itertools.chain.from_iterable(plans[split] for split in reversed(plans)))
  free = shards.emptied(folder, tasks)
  left = [task for task in tasks if writer.finished(task) is None]
  done_rows = sum(len(task.parts) for task in tasks) - sum(len(task.parts) for task in left)
  for task in set(tasks) - set(left):
    free(task)
  rows = sum(map(len, chosen.values()))
  with Progress("writing", rows, done_rows, len(tasks), len(tasks) - len(left)) as progress:

    def done(task: shards.ShardTask):
      progress.done(task)
      free(task)

    _run(request, writer, left, progress, done)
  return {split: _split(request.out, split, table.rows[chosen[split]], plans[split], writer) for split in plans}


def _split(out: Path, split: str, rows: np.ndarray, plan: Sequence[shards.ShardTask], writer) -> Split:
  index = f"index-{split}.npy"
  shards.write_index(out / index, rows)
  written = tuple(writer.finished(task) for task in plan)
  return Split(len(rows), int(rows["images"].sum()), written, index, prepared.sha256(out / index))


def _described(split: Split) -> dict[str, Any]:
  index = {"file": split.index, "sha256": split.index_sha256}
  listed: list[Shard] = list(split.shards)
  return {"records": split.records, "images": split.images, "index": index, "shards": [vars(shard) for shard in listed]}


def _list_dropped(all_parts: Sequence[Part], table: shards.Table, kept: np.ndarray, path: Path) -> Counter:
  """Lists what is left out, with reasons, in one file; returns how many rows were dropped for each reason."""
  reasons = Counter()
  with writing(path), writing_whole(path) as file:
    for part in all_parts:
      reasons.update((part.summary() or {}).get("reasons", {}))
      file.write(part.dropped.read_bytes())
    for key, first in shards.duplicates(path.parent / prepared.PARTS, table, kept):
      file.write(parts.dropped_line(key, f"duplicate: the same as {first}"))
  return reasons


def _say_dropped(dropped: Counter, records: int, duplicates: int, out: Path, say: Say):
  if duplicates:
    say(f"{duplicates:,} records are the same as another, and left out")
  if not dropped:
    return
  rows = records + dropped.total()
  say(f"{dropped.total():,} of {rows:,} rows are dropped, listed in {out / 'dropped.jsonl'}:")
  for reason, count in dropped.most_common(NAMED):
    say(f"  {count:,} {reason}")
  if dropped.total() > MANY_DROPPED * rows:
    say(f"warning: {dropped.total() / rows:.0%} of the rows are dropped; look whether the source is what was meant")


def _check_splits(chosen: Mapping[str, np.ndarray], request: Request, dropped: Counter, say: Say):
  """UserError if there is nothing to train on."""
  train, test = (len(chosen[split]) for split in SPLITS)
  if not train and not test:
    why = f"all {dropped.total():,} rows were dropped, for the reasons in {request.out / 'dropped.jsonl'}"
    raise UserError(f"{request.source} holds no record: {why if dropped else 'it has no rows'}; give another --source")
  if not train:
    raise UserError(f"all {test:,} records are for tests; give a smaller --held_out, or a source with training records")
  if not test:
    say(
      "warning: no record is held out for tests, so that evaluations cannot use this data set; give a larger --held_out"
    )


def _finish(out: Path, description: Mapping[str, Any]) -> Prepared:
  """dataset.json, last but for the report, which is made from what can be read back."""
  finished = Prepared(out, description)
  pages.report(finished, out / "report.html")
  with writing(out):
    write_whole(out / prepared.DESCRIPTION, json.dumps(description, indent=2).encode())
  return Prepared.open(out)


def _name_of(source: str) -> str:
  """A name that TFDS takes, after the source's."""
  words = re.sub(r"\W+", "_", Path(source).name.partition(".")[0], flags=re.ASCII).strip("_").lower()
  return words if words[:1].isalpha() else f"set_{words}".strip("_")
