"""A run is a folder: config.json, checkpoints/, metrics/, samples/, report.html, lock, and tokenizer.json where the
text vocabulary is not the one that ships with the package. This file knows its names.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from omniimage.checkpoint import Checkpoints
from omniimage.data.text import TextTokenizer
from omniimage.errors import UserError
from omniimage.files import write_whole
from omniimage.lock import Lock
from omniimage.models.omni import Omni, Params
from omniimage.paths import absolute
from omniimage.settings import Settings, from_stored

BUILTIN_VOCABULARY = "builtin"


class Workdir:
  def __init__(self, path: str | os.PathLike):
    self.path = absolute(path)
    self.lock = Lock(self.path / "lock")

  @property
  def config(self) -> Path:
    return self.path / "config.json"

  @property
  def vocabulary(self) -> Path:
    return self.path / "tokenizer.json"

  @property
  def checkpoints(self) -> Path:
    return self.path / "checkpoints"

  @property
  def metrics(self) -> Path:
    return self.path / "metrics"

  @property
  def samples(self) -> Path:
    return self.path / "samples"

  @property
  def unsaved(self) -> Path:
    """A file that is there as long as the run has completed no checkpoint, and may begin anew by itself."""
    return self.path / "nothing_saved_yet"

  @property
  def old_run(self) -> Path:
    """Where a run is moved to when another is begun in its place."""
    return self.path / "old_run"

  def create(self):
    """Makes the folders. UserError where they cannot be made or written to."""
    try:
      for folder in (self.checkpoints, self.metrics, self.samples):
        folder.mkdir(parents=True, exist_ok=True)
      probe = self.path / f".writable.{jax.process_index()}"
      probe.touch()
      probe.unlink()
    except OSError as error:
      raise UserError(f"cannot write to the workdir {self.path}: {error.strerror}; choose another --workdir") from None

  def write_config(self, config: Mapping[str, Any]):
    if jax.process_index() == 0:
      write_whole(self.config, (json.dumps(config, indent=2) + "\n").encode())

  def keep_vocabulary(self, path: str):
    """Copies a vocabulary into the workdir, which then needs nothing outside. UserError if it holds another one."""
    if path == BUILTIN_VOCABULARY:
      return
    text = Path(path).read_text(encoding="utf-8")
    if self.vocabulary.exists() and self.vocabulary.read_text(encoding="utf-8") != text:
      raise UserError(f"data.vocabulary={path!r} is not the one that {self.path} was trained with, {self.vocabulary}")
    if jax.process_index() == 0:
      write_whole(self.vocabulary, text.encode())

  def load_vocabulary(self, settings: Settings) -> TextTokenizer:
    """The run's own vocabulary, whatever path its config names."""
    builtin = settings.data.vocabulary == BUILTIN_VOCABULARY
    return TextTokenizer.load(BUILTIN_VOCABULARY if builtin else str(self.vocabulary))


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained run, ready to sample with.

  Attributes:
    params: {tokenizer, prior, decoder}, stacked; averages where the run keeps them.
    step: of the checkpoint.
    seconds: that each stage has taken.
  """

  settings: Settings
  params: Params
  text_tokenizer: TextTokenizer
  step: int
  seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)


def load_run(path: str | os.PathLike) -> Run:
  """The last checkpoint of a workdir, without its optimizer. UserError where there is none."""
  workdir = Workdir(path)
  path = workdir.path
  if not workdir.config.is_file():
    raise UserError(
      f"{path} is not a run: it has no config.json; train one with python -m launch.train --workdir={path}"
    )
  try:
    config = json.loads(workdir.config.read_text())
  except (OSError, ValueError):
    raise UserError(f"{workdir.config} cannot be read; the command that trained the run writes it again") from None
  settings = from_stored(config)
  text_tokenizer = workdir.load_vocabulary(settings)
  checkpoints = Checkpoints(workdir.checkpoints)
  params = jax.eval_shape(Omni(settings, text_tokenizer.size).init, jax.random.key(0))

  def read(step: int) -> Run:
    averaged = {path.split("/")[1] for path in checkpoints.shapes(step) if path.startswith("ema/")}
    abstract = {"params": params, "ema": {part: params[part] for part in sorted(averaged)}}
    seconds = checkpoints.metadata(step)["seconds"]
    restored = checkpoints.restore_params(step, abstract)
    return Run(settings, {**restored["params"], **restored["ema"]}, text_tokenizer, step, seconds)

  run = checkpoints.read_newest(read)
  if run is None:
    raise UserError(f"{path} has no checkpoint yet; let the training run reach run.checkpoint_every steps")
  return run
