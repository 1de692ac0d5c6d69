"""Batches of codes that were made once (`data.codes`), for the stages that need no pixels, and the proof that they are
of the tokenizer that the run has."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from omniimage.checkpoint import by_path
from omniimage.commands import command
from omniimage.data.batches import Batches
from omniimage.data.codes import StoredCodes
from omniimage.data.fetched import on_this_machine
from omniimage.data.sources import open_codes
from omniimage.data.text import TextTokenizer
from omniimage.errors import UserError
from omniimage.settings import Settings
from omniimage.systems.system import Params, System
from omniimage.training.state import TrainState

SHOWN = 8  # digits of a fingerprint in messages


@dataclasses.dataclass(frozen=True)
class Coded:
  """The codes of a run, and the batches of them."""

  stored: StoredCodes
  batches: Batches

  @classmethod
  def open(cls, system: System, text_tokenizer: TextTokenizer) -> "Coded | None":
    """What `data.codes` names; None where no stage of the schedule would read it. UserError where it is not of the
    run's data and settings."""
    settings, data = system.settings, system.settings.data
    if not any(system.reads_codes(settings.stages[name]) for name in settings.schedule):
      if data.codes:
        logging.warning("data.codes=%r is not read: every stage of the schedule needs pixels", data.codes)
      return None
    stored = StoredCodes.open(on_this_machine(data.codes))
    stored.check(meant(settings))
    source = open_codes(stored, data, "train", settings.buckets, text_tokenizer, system.vocabulary)
    batches = Batches(source, data, system.vocabulary, text_tokenizer, settings.buckets, settings.seed, coded=True)
    return cls(stored, batches)

  def check(self, system: System, state: TrainState):
    """UserError unless the next stage that reads codes will find the tokenizer that has made them."""
    settings, stop = system.settings, 0
    for name in settings.schedule:
      stage = settings.stages[name]
      stop += stage.steps
      if stop <= int(state.step):
        continue
      if system.reads_codes(stage):
        return self._check(fingerprint(state.params[system.encoder]))
      if system.encoder in stage.moves:
        raise UserError(
          f"{self._name}: before a stage reads the codes, {name} changes the {system.encoder} that has made them; "
          f"train up to the end of {name} without data.codes, then {self._again}"
        )

  def _check(self, found: str):
    made = self.stored.made.tokenizer
    if found != made:
      raise UserError(
        f"{self._name} was made with another tokenizer, {made[:SHOWN]} there and {found[:SHOWN]} here; {self._again}, "
        "or set data.codes to '' to read images"
      )

  @property
  def _name(self) -> str:
    return f"data.codes={str(self.stored.folder.path)!r}"

  @property
  def _again(self) -> str:
    return (
      f"make codes with the tokenizer of this run, {command('prepare')} --source=PREPARED --tokenize=WORKDIR "
      "--out=FOLDER, and give their folder as data.codes"
    )


def meant(settings: Settings) -> dict[str, Any]:
  """The settings, as JSON has them, that say what the tokenizer is shown of an image and how it reads it; its codes are
  a function of these, of its parameters and of the image."""
  source = dataclasses.asdict(settings.data.source)
  return _plain({
    "tokenizer": dataclasses.asdict(settings.tokenizer),
    "decoder.pixels_per_token": settings.decoder.pixels_per_token,
    "sizes": [size.pixels for size in settings.buckets],
    **{f"data.source.{name}": source[name] for name in ("fit", "background") if name in source},
  })  # fmt: skip


def fingerprint(params: Params) -> str:
  """Of the values of parameters, wherever on a mesh they lie. All processes must call it."""
  digest = hashlib.sha256()
  for path, leaf in sorted(by_path(params).items()):
    value = _whole(leaf)
    digest.update(f"{path} {value.dtype} {value.shape}\n".encode())
    digest.update(np.ascontiguousarray(value).data)
  return digest.hexdigest()


def _whole(leaf: jax.Array | np.ndarray) -> np.ndarray:
  addressable = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
  return np.asarray(leaf if addressable else multihost_utils.process_allgather(leaf, tiled=True))


def _plain(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {key: _plain(inner) for key, inner in value.items()}
  return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
