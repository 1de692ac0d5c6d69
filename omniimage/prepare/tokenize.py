"""Codes of a prepared data set's images, made once by a trained tokenizer: `launch.prepare --tokenize`.

  prepared data set ──► pictures, as the run sees them ──► codes, on all local devices ──► shards ──► dataset.json

What it makes is read by `omniimage.data.codes`. A shard is written whole, and skipped where it is there.
"""

import dataclasses
import functools
import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import grain
import numpy as np

from omniimage.data import codes, records
from omniimage.data.codes import Made
from omniimage.data.images import BadImage
from omniimage.data.prepared import DESCRIPTION, Prepared, Shard
from omniimage.data.records import BadRecord, Record
from omniimage.data.sources import open_source
from omniimage.errors import UserError
from omniimage.files import write_whole
from omniimage.paths import writing
from omniimage.prepare import output
from omniimage.prepare.coder import Coder
from omniimage.prepare.progress import Progress
from omniimage.prepare.shards import ShardWriter
from omniimage.prepare.views import VIEWS, Look
from omniimage.settings import Settings
from omniimage.size import Size
from omniimage.streams import Stream, generator
from omniimage.systems import load_run, open_system
from omniimage.systems.system import System
from omniimage.training.coded import fingerprint, meant
from omniimage.training.state import stage_at, trained_parts
from omniimage.workdir import Run

SHARD_RECORDS = 2**16  # 9 MB where pictures have 64 codes
# Records are packed 32 at a time: of 64 codes and a caption that takes 134 bytes a record, 413 where each is packed by
# itself, and to find one of them costs less, not more.
OPTIONS = "group_size:32"
OF_IMAGES = ("dropped", "duplicates", "statistics")  # entries of dataset.json that say nothing of codes
AHEAD = 256  # records that are read ahead

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
  """What is asked for.

  Attributes:
    source: the prepared data set.
    workdir: the run whose tokenizer it is.
    variants: of each image, of `VIEWS`; one of them is drawn each time a record is read.
    threads: that read and decode pictures.
  """

  source: Path
  workdir: Path
  out: Path
  variants: tuple[str, ...] = ("whole",)
  threads: int = 1
  shard_records: int = SHARD_RECORDS

  def identity(self, made: Made) -> dict[str, Any]:
    """What the content of the folder depends on, by the names of the flags."""
    tokenizer = f"{self.workdir} (tokenizer {made.tokenizer[:8]})"
    return {"source": str(self.source), "tokenize": tokenizer, "variants": list(self.variants)}


def tokenize(request: Request, say: Say) -> Prepared:
  """Makes the codes, or finishes what was begun. Says how it goes, a line at a time.

  Raises:
    UserError: where run, data set or folder cannot be used, or the disk is full. What was done is kept.
  """
  prepared = Prepared.open(request.source)
  if codes.holds_codes(prepared):
    raise UserError(f"--source={request.source} holds codes already; give the prepared data set that they are of")
  run, system = load_trained(request.workdir, request.source)
  made = Made(prepared.fingerprint, fingerprint(run.params[system.encoder]), meant(run.settings), request.variants)
  identity = request.identity(made)
  output.check(request.out, request.source, identity)
  if (done := output.complete(request.out, identity, say)) is not None:
    return done
  with output.taken(request.out) as folder:
    if (done := output.complete(request.out, identity, say)) is not None:  # by another process, a moment ago
      return done
    output.begin(request.out, identity, json.dumps(dataclasses.asdict(made)))
    coder = Coder(system, run.params, run.settings.buckets)
    writer = CodesWriter(folder, request.out, request, prepared, run, coder)
    splits = _write_shards(writer, say)
    told = {name: value for name, value in prepared.description.items() if name not in OF_IMAGES}
    description = {**told, **codes.described(made), "splits": splits, "request": identity}
    with writing(request.out):
      write_whole(request.out / DESCRIPTION, json.dumps(description, indent=2).encode())
  output.clear(request.out)
  say(
    f"complete: {request.out}, {_bytes_a_record(splits):.0f} bytes a record\n"
    f"train with --config.data.codes={request.out}"
  )
  return Prepared.open(request.out)


def load_trained(workdir: Path, source: Path) -> tuple[Run, System]:
  """A run that reads the prepared data set `source`, and its system. UserError unless its tokenizer is trained."""
  run = load_run(workdir)
  settings = run.settings
  name = settings.data.source.name
  if name != "records":
    raise UserError(
      f"--tokenize={workdir}: the run learns from data.source.name={name}, which does not say how it looks at "
      "pictures; give one that was trained on a prepared data set"
    )
  system = open_system(settings, run.text_tokenizer.size)
  if not system.encoder:
    raise UserError(f"--tokenize={workdir}: a run of config.system={settings.system!r} has no tokenizer")
  _check_trained(settings, system.encoder, run.step, workdir)
  own = dataclasses.replace(settings.data.source, path=str(source))
  data = dataclasses.replace(settings.data, source=own)
  return dataclasses.replace(run, settings=dataclasses.replace(settings, data=data)), system


def _check_trained(settings: Settings, encoder: str, step: int, workdir: Path):
  """UserError where no stage has trained the encoder, or one is at it."""
  stages = ((settings.stages[name].rates, settings.stages[name].steps) for name in settings.schedule)
  if encoder not in trained_parts(stages, step):
    raise UserError(f"--tokenize={workdir}: at step {step} no stage has trained the {encoder} yet; train it first")
  stage, start = stage_at(settings, step)
  if stage and step > start and encoder in settings.stages[stage].moves:
    raise UserError(
      f"--tokenize={workdir}: the {encoder} is being trained, step {step - start} of {settings.stages[stage].steps} of "
      f"{stage}; codes would fit no later step: let the stage end first"
    )


@dataclass(frozen=True)
class Task:
  """The records start … stop−1 of a split, a shard."""

  name: str  # of the file
  split: str
  start: int
  stop: int


@dataclass(frozen=True)
class CodesWriter(ShardWriter):
  """Writes a shard of codes."""

  options: ClassVar[str] = OPTIONS
  request: Request
  prepared: Prepared
  run: Run
  coder: Coder

  def tasks(self, split: str) -> list[Task]:
    count, name = self.prepared.splits[split].records, self.prepared.description["name"]
    starts = range(0, count, self.request.shard_records)
    return [
      Task(f"{name}-{split}.array_record-{i:05d}-of-{len(starts):05d}", split, start, min(start + starts.step, count))
      for i, start in enumerate(starts)
    ]

  def records(self, task: Task) -> Iterator[bytes]:
    """The records with codes in place of their images, each as soon as those before it have theirs."""
    reader, codebook, waiting = self.reader(task.split), self.run.settings.tokenizer.codes, deque()
    options = grain.ReadOptions(num_threads=self.request.threads, prefetch_buffer_size=AHEAD)
    for shown in grain.MapDataset.range(task.start, task.stop).map(reader).to_iter_dataset(options):
      waiting.append(_Coded(shown, self.coder))
      while waiting and waiting[0].is_whole:
        yield waiting.popleft().stored(codebook)
    self.coder.finish()
    for coded in waiting:
      yield coded.stored(codebook)

  def reader(self, split: str) -> "Reader":
    settings, tokenizer = self.run.settings, self.run.text_tokenizer
    vocabulary = open_system(settings, tokenizer.size).vocabulary
    buckets = open_source(settings.data, split, settings.buckets, tokenizer, vocabulary).catalogue().buckets
    own, views = settings.data.source, tuple(self.request.variants)
    return Reader(self.prepared, split, settings.buckets, buckets, Look(own.fit, own.background), views)


@dataclass(frozen=True)
class Shown:
  """A record, and what the tokenizer is shown of each of its images, or why nothing.

  Attributes:
    record: None where what is stored is no record.
    views: for each image its V views (H, W, 3) of the size of the bucket, or the reason why there are none.
  """

  record: Record | None
  bucket: int
  views: tuple[tuple[np.ndarray, ...] | str, ...] = ()


@dataclass(frozen=True, eq=False)
class Reader:
  """Reads records by their number."""

  prepared: Prepared
  split: str
  sizes: Sequence[Size]
  buckets: np.ndarray | None
  look: Look
  views: tuple[str, ...]

  def __call__(self, index: int) -> Shown:
    bucket = 0 if self.buckets is None else int(self.buckets[index])
    try:
      record = self.prepared.read(self.split, int(index))
    except BadRecord:
      return Shown(None, bucket)
    return Shown(record, bucket, tuple(self._views(index, image, bucket) for image in record.images))

  def _views(self, index: int, encoded: bytes, bucket: int) -> tuple[np.ndarray, ...] | str:
    """Parts are of the same place in all pictures of a record."""
    size = self.sizes[bucket]
    try:
      return tuple(
        VIEWS[view](encoded, size, self.look, generator(Stream.VIEWS, 0, int(index), variant))
        for variant, view in enumerate(self.views)
      )
    except BadImage as problem:
      return str(problem)


class _Coded:
  """A record whose codes are being made."""

  def __init__(self, shown: Shown, coder: Coder):
    self._record = shown.record and dataclasses.replace(shown.record, images=())  # those are seen, and large
    self._coming = 0
    self._images: list[str | list[np.ndarray]] = []  # of each the reason, or what has come
    for views in shown.views:
      if isinstance(views, str):
        self._images.append(views)
        continue
      self._images.append(found := [])
      self._coming += len(views)
      for view in views:
        coder.put(shown.bucket, view, functools.partial(self._take, found))

  @property
  def is_whole(self) -> bool:
    return self._coming == 0

  def stored(self, codebook: int) -> bytes:
    """As it is stored, once it is whole."""
    if self._record is None:
      return codes.REASON  # which is no record either
    images = (
      codes.why_none(image) if isinstance(image, str) else codes.to_bytes(np.stack(image), codebook)
      for image in self._images
    )
    return records.to_bytes(dataclasses.replace(self._record, images=tuple(images)))

  def _take(self, found: list[np.ndarray], codes_hw: np.ndarray):
    found.append(codes_hw)
    self._coming -= 1


def _write_shards(writer: CodesWriter, say: Say) -> dict[str, Any]:
  """All that is not there yet. Returns the splits as dataset.json describes them."""
  tasks = {split: writer.tasks(split) for split in writer.prepared.splits}
  listed = [task for own in tasks.values() for task in own]
  left = [task for task in listed if writer.finished(task) is None]
  total, ahead = (sum(task.stop - task.start for task in some) for some in (listed, left))
  began = time.monotonic()
  with Progress("encoding", total, total - ahead, len(listed), len(listed) - len(left)) as progress:
    for task in left:
      writer(task, progress.tell)
  if left:
    say(f"{ahead:,} records in {time.monotonic() - began:.0f} s, {ahead / (time.monotonic() - began):.0f} a second")
  return {split: _described(writer, split, own) for split, own in tasks.items()}


def _described(writer: CodesWriter, split: str, tasks: Sequence[Task]) -> dict[str, Any]:
  """A split of dataset.json, its index beside the shards: that of the pictures."""
  before: Mapping[str, Any] = writer.prepared.description["splits"][split]
  index = before["index"]["file"]
  with writing(writer.out):
    shutil.copyfile(writer.prepared.path / index, writer.out / index)
  shards: list[Shard] = [writer.finished(task) for task in tasks]
  return {**before, "shards": [vars(shard) for shard in shards]}


def _bytes_a_record(splits: Mapping[str, Any]) -> float:
  stored = sum(shard["bytes"] for split in splits.values() for shard in split["shards"])
  return stored / max(sum(split["records"] for split in splits.values()), 1)
