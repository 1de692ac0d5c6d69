"""A run is a folder: config.json, checkpoints/, metrics/, samples/, logs/, report.html, lock, and where there are such,
bad_records.jsonl, and tokenizer.json with a text vocabulary that does not ship with the package. This file knows its
names.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging
from etils import epath

from omniimage import buckets, versions
from omniimage.bucket_lock import BucketLock
from omniimage.checkpoint import Checkpoints, by_path
from omniimage.commands import command
from omniimage.data.text import BUILTIN, TextTokenizer, vocabulary_fingerprint
from omniimage.distributed.devices import check_devices
from omniimage.errors import UserError
from omniimage.files import write_whole
from omniimage.growing import Growing
from omniimage.lock import Lock
from omniimage.models.omni import Omni, Params
from omniimage.paths import absolute, anywhere
from omniimage.settings import Settings, SettingsError, from_stored

BUILTIN_VOCABULARY = "builtin"
AGAIN = "the command that trained the run writes it again"


class Workdir:
  """The run at a path, on disk or in a bucket."""

  def __init__(self, path: str | os.PathLike):
    self.path = anywhere(path)
    self.remote = buckets.is_remote(self.path)
    self.lock = (BucketLock if self.remote else Lock)(self.path / "lock")
    self._growing: Growing | None = None

  @property
  def config(self) -> Path | epath.Path:
    return self.path / "config.json"

  @property
  def vocabulary(self) -> Path | epath.Path:
    return self.path / "tokenizer.json"

  @property
  def checkpoints(self) -> Path | epath.Path:
    return self.path / "checkpoints"

  @property
  def metrics(self) -> Path | epath.Path:
    return self.path / "metrics"

  @property
  def samples(self) -> Path | epath.Path:
    return self.path / "samples"

  @property
  def bad_records(self) -> Path | epath.Path:
    """Lines of the records that this process could not use. The name is that of the first process."""
    process = jax.process_index()
    return self.path / (f"bad_records.{process}.jsonl" if process else "bad_records.jsonl")

  @property
  def log(self) -> Path | epath.Path:
    """What this process has to say at length."""
    return self.path / "logs" / f"{jax.process_index()}.log"

  @property
  def unsaved(self) -> Path | epath.Path:
    """A file that is there as long as the run has completed no checkpoint, and may begin anew by itself."""
    return self.path / "nothing_saved_yet"

  @property
  def old_run(self) -> Path | epath.Path:
    """Where a run is moved to when another is begun in its place."""
    return self.path / "old_run"

  def create(self):
    """Makes the folders. UserError where they cannot be made or written to."""
    try:
      for folder in () if self.remote else (self.checkpoints, self.metrics, self.samples):
        folder.mkdir(parents=True, exist_ok=True)
      probe = self.path / f".writable.{jax.process_index()}"
      probe.touch()
      probe.unlink()
    except Exception as error:
      why = self.trouble(error)
      if not why:
        raise
      raise UserError(f"cannot write to the workdir {self.path}: {why}; choose another --workdir") from None

  def trouble(self, error: BaseException) -> str:
    """What a disk or a bucket had against being written to or read, in words; empty if the error is none of theirs."""
    if self.remote:
      return buckets.trouble(error)
    return str(error.strerror or error) if isinstance(error, OSError) else ""

  def growing(self, path: Path | epath.Path) -> Path:
    """Where lines are added to a file or to those of a folder: there, or for a bucket here, until `bring`."""
    if not self.remote:
      return path
    self._growing = self._growing or Growing(self.path)
    return self._growing.place(path)

  def bring(self):
    """What has grown is in the workdir when this returns."""
    if self._growing is not None:
      self._growing.bring()

  def close(self):
    """Lets the lock go."""
    with contextlib.closing(self.lock):
      if self._growing is not None:
        with contextlib.suppress(Exception):  # the log's last lines, if the storage takes them
          self._growing.bring()
        self._growing.close()

  def write_config(self, config: Mapping[str, Any]):
    if jax.process_index() == 0:
      write_whole(self.config, (json.dumps(versions.stamped(config), indent=2) + "\n").encode())

  def read_settings(self) -> Settings:
    """Of config.json, whichever version has written it. UserError if it cannot be read."""
    config, written_in = self.read_config()
    try:
      return from_stored(config)
    except SettingsError as error:
      raise UserError(
        f"{self.config}, of format {written_in}: {error}; {AGAIN}, with configs of this version"
      ) from None

  def read_config(self) -> tuple[dict[str, Any], int]:
    """config.json as one of this version, and the format that it was written in. UserError if it cannot be read."""
    if not self.config.is_file():
      raise UserError(
        f"{self.path} is not a run: it has no config.json; train one with {command('train')} --workdir={self.path}"
      )
    try:
      config = dict(json.loads(self.config.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
      raise UserError(f"{self.config} cannot be read; {AGAIN}") from None
    written_in = versions.format_of(config, str(self.config))
    return versions.present_config(config, written_in), written_in

  def begun(self) -> Settings | None:
    """The settings of the run that is there; None where none is, or none that can be read."""
    try:
      return self.read_settings()
    except UserError:
      return None

  def open_vocabulary(self, name: str) -> TextTokenizer:
    """The vocabulary that a config names. Where its file is gone, the run's own copy takes its place.

    UserError if there is neither, or if the copy is another vocabulary.
    """
    if name == BUILTIN_VOCABULARY:
      return TextTokenizer.load(name)
    kept = vocabulary_fingerprint(self.vocabulary)
    if kept and not absolute(name).exists():
      logging.warning("data.vocabulary=%r is gone; goes on with the run's own copy, %s", name, self.vocabulary)
      return TextTokenizer.load(str(self.vocabulary))
    tokenizer = TextTokenizer.load(name)
    if kept not in (None, tokenizer.fingerprint):
      raise UserError(f"data.vocabulary={name!r} is not the one that {self.path} was trained with, {self.vocabulary}")
    return tokenizer

  def keep_vocabulary(self, name: str):
    """Copies the vocabulary that a config names into the workdir, which then needs nothing outside."""
    if name != BUILTIN_VOCABULARY and jax.process_index() == 0 and not vocabulary_fingerprint(self.vocabulary):
      write_whole(self.vocabulary, absolute(name).read_bytes())

  def load_vocabulary(self, settings: Settings) -> TextTokenizer:
    """The run's own vocabulary, whatever path its config names."""
    return TextTokenizer.load(str(self.vocabulary_of(settings)))

  def vocabulary_of(self, settings: Settings) -> Path | epath.Path:
    """The file of the run's vocabulary: its own, or the one that ships with the package."""
    return BUILTIN if settings.data.vocabulary == BUILTIN_VOCABULARY else self.vocabulary


def check_vocabulary(about: Mapping[str, Any], settings: Settings, text_tokenizer: TextTokenizer, where: str):
  """UserError if a checkpoint, by what it says of itself, was trained with another vocabulary: content counts."""
  stored, name = about["config"]["data"]["vocabulary"], settings.data.vocabulary
  if known := about.get("vocabulary"):
    same = known == text_tokenizer.fingerprint
  else:  # of format 0: files were compared with the run's own copy already
    same = (stored == BUILTIN_VOCABULARY) == (name == BUILTIN_VOCABULARY)
  if not same:
    raise UserError(
      f"{where} was trained with another text vocabulary, {stored!r} there and data.vocabulary={name!r} here; name "
      "the one it was trained with, of which the run keeps a copy, or take another workdir"
    )


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained run, ready to sample with.

  Attributes:
    params: by part, stacked; averages where the run keeps them.
    step: of the checkpoint.
    seconds: that each stage has taken.
  """

  settings: Settings
  params: Params
  text_tokenizer: TextTokenizer
  step: int
  seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)


def load_run(
  path: str | os.PathLike,
  init_of: Callable[[Settings, int], Callable] = lambda s, text_size: Omni(s, text_size).init,
  place: jax.sharding.Sharding | None = None,
) -> Run:
  """The last checkpoint of a workdir, without its optimizer, or what launch.export has made of one. UserError where
  there is none.

  Args:
    init_of: of settings and the size of the text vocabulary: what makes the parameters of the run's system.
      `omniimage.systems.load_run` knows those of all systems.
    place: where they go; by default the first device.
  """
  from omniimage.interop import pretrained  # which knows what a run is

  workdir = Workdir(path)
  settings = workdir.read_settings()
  check_devices()
  text_tokenizer = workdir.load_vocabulary(settings)
  params = jax.eval_shape(init_of(settings, text_tokenizer.size), jax.random.key(0))
  params = jax.tree.map(lambda leaf: leaf.update(sharding=place), params)
  if pretrained.is_pretrained(workdir.path):
    return pretrained.read(workdir.path, settings, text_tokenizer, params)
  versions.refuse_unsealed(workdir.checkpoints)
  checkpoints = Checkpoints(workdir.checkpoints)

  def read(step: int) -> Run:
    about, where = checkpoints.metadata(step), f"{workdir.checkpoints / str(step)}"
    written_in = versions.checkpoint_format(about, where)
    check_vocabulary(about, settings, text_tokenizer, where)
    averaged = _averaged(checkpoints, step, params, written_in)
    return Run(settings, averaged, text_tokenizer, step, about["seconds"])

  run = checkpoints.read_newest(read)
  if run is None:
    raise UserError(f"{workdir.path} has no checkpoint yet; let the training run reach run.checkpoint_every steps")
  return run


def _averaged(checkpoints: Checkpoints, step: int, abstract: Params, written_in: int) -> Params:
  """The parameters of a checkpoint of some format, averages where it has them."""
  asked, inventory = by_path(abstract), checkpoints.shapes(step)
  places = {}
  for path in asked:
    both = versions.stored_paths((f"ema/{path}", f"params/{path}"), inventory, written_in)
    places[path] = next((old for old in both.values() if old in inventory), f"params/{path}")
  found = checkpoints.restore_params(step, {places[path]: leaf for path, leaf in asked.items()})
  return jax.tree.unflatten(jax.tree.structure(abstract), [found[places[path]] for path in asked])
