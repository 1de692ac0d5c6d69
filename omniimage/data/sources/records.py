"""One's own data, as `launch.prepare` has made it: a folder of `omniimage.data.prepared`."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omniimage.buckets import SCHEME
from omniimage.data import codes
from omniimage.data.codes import StoredCodes
from omniimage.data.conversation import Tokenizer
from omniimage.data.fetched import on_this_machine
from omniimage.data.records import BadRecord, Record
from omniimage.data.sources.coded import CodedSource
from omniimage.data.sources.mixture import MixtureSettings, MixtureSource
from omniimage.data.sources.source import Source
from omniimage.data.sources.stored import StoredSettings, StoredSource
from omniimage.errors import UserError, require
from omniimage.paths import absolute
from omniimage.size import Size

if TYPE_CHECKING:
  from omniimage.data.prepared import Prepared


@dataclass(frozen=True)
class RecordsSettings(StoredSettings):
  path: str  # of the folder, on a disk or gs://BUCKET/FOLDER; or of several, each with its weight: photos:0.7,texts:0.3


@dataclass(frozen=True)
class PreparedSplit:
  """The records of one split of a folder."""

  prepared: "Prepared"
  split: str

  def index(self) -> np.ndarray:
    return self.prepared.index(self.split)

  def text_tokens(self, text_tokenizer: Tokenizer) -> np.ndarray:
    return self.prepared.text_tokens(self.split, text_tokenizer)

  def read(self, index: int) -> Record:
    return self.prepared.read(self.split, index)

  def place(self, index: int) -> str:
    """Its key; where that cannot be read, its shard and number there."""
    try:
      return self.read(index).key
    except BadRecord:
      for shard in self.prepared.shards(self.split):
        if index < shard.records:
          return f"{shard.file}:{index}"
        index -= shard.records
      raise


def open_records(settings: RecordsSettings, split: str, sizes: Sequence[Size], text_tokenizer: Tokenizer) -> Source:
  """A split of a prepared folder, or the mixture of several. UserError where one is none, or not finished, or has
  nothing to train on."""
  if parts := weighted(settings.path):
    sources = tuple(dataclasses.replace(settings, path=path) for path, _ in parts)
    mixture = MixtureSettings("mixture", sources, tuple(weight for _, weight in parts))
    return MixtureSource(mixture, split, sizes, text_tokenizer)
  from omniimage.data.prepared import Prepared  # and what reads the shards, which other sources do without

  require(
    bool(settings.path),
    "data.source.path is empty; set config.data.source.path to a folder that launch.prepare has made of your data",
  )
  path = on_this_machine(settings.path)
  prepared = Prepared.open(path)
  require(
    not codes.holds_codes(prepared),
    f"{path} holds codes, not images: give it as data.codes, and the data set that they are of as data.source.path",
  )
  if split == "train" and split not in prepared.splits:
    raise UserError(f"{path} holds out all of its records; prepare it with a smaller --held_out in another folder")
  empty = f"{path} holds out no records to evaluate on; prepare it with --held_out=0.05 in another folder"
  stored = PreparedSplit(prepared, split) if split in prepared.splits else None
  return StoredSource(settings, stored, sizes, text_tokenizer, empty)


def weighted(path: str) -> list[tuple[str, float]]:
  """The folders and weights of `photos:0.7,texts:0.3`; none where that is one folder, whatever it is called."""
  parts = [re.fullmatch(r"(.*[^:]):(\d+(?:\.\d*)?|\.\d+)", part) for part in path.split(",")]
  if not all(parts) or (SCHEME not in path and absolute(path).exists()):
    return []
  return [(part[1], float(part[2])) for part in parts]


def open_codes(
  stored: StoredCodes, settings: RecordsSettings, split: str, sizes: Sequence[Size], text_tokenizer: Tokenizer
) -> CodedSource:
  """The same split with the codes of its images in their place. UserError if they are of another folder's."""
  from omniimage.data.prepared import Prepared

  stored.check_records(Prepared.open(on_this_machine(settings.path)))
  return CodedSource(settings, PreparedSplit(stored.folder, split), sizes, text_tokenizer)
