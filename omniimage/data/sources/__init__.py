"""The sources of records, by the name that a config gives. A new one is one file here, with its settings, and one row.

These files know nothing of `omniimage.settings`, which reads this table.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from omniimage.commands import command
from omniimage.data.sources.emoji import EmojiSettings, EmojiSource
from omniimage.data.sources.mixture import MixtureSettings, MixtureSource
from omniimage.data.sources.records import RecordsSettings, open_records
from omniimage.data.sources.records import open_codes as open_coded_records
from omniimage.data.sources.scenes import ScenesSettings, ScenesSource
from omniimage.data.sources.source import SPLITS, Row, Source
from omniimage.data.sources.tfds import TfdsSettings, open_tfds
from omniimage.errors import SettingsError
from omniimage.size import Size
from omniimage.vocabulary import Vocabulary

if TYPE_CHECKING:
  from omniimage.data.codes import StoredCodes
  from omniimage.data.text import TextTokenizer
  from omniimage.settings import DataSettings

SOURCES = {
  "scenes": Row(ScenesSettings, ScenesSource),
  "emoji": Row(EmojiSettings, EmojiSource),
  "records": Row(RecordsSettings, open_records, open_coded_records),
  "tfds": Row(TfdsSettings, open_tfds),
  "mixture": Row(MixtureSettings, MixtureSource),
}


def open_source(
  data: "DataSettings", split: str, sizes: Sequence[Size], text_tokenizer: "TextTokenizer", vocabulary: Vocabulary
) -> Source:
  """The source that `data.source` names, of "train" or "test". ValueError if split, sizes or vocabulary do not fit."""
  _check(data, split, text_tokenizer, vocabulary)
  return SOURCES[data.source.name].open(data.source, split, sizes, text_tokenizer)


def open_codes(
  stored: "StoredCodes",
  data: "DataSettings",
  split: str,
  sizes: Sequence[Size],
  text_tokenizer: "TextTokenizer",
  vocabulary: Vocabulary,
) -> Source:
  """The same records in the same order, the images of their turns in codes. UserError if those are of others."""
  _check(data, split, text_tokenizer, vocabulary)
  open_stored = SOURCES[data.source.name].open_codes
  if open_stored is None:
    has_some = [name for name, row in SOURCES.items() if row.open_codes]
    raise SettingsError(
      f"data.codes={data.codes!r}: codes are stored of a prepared data set, data.source.name={' or '.join(has_some)}, "
      f"and this is {data.source.name}; prepare it with {command('prepare')}, or set data.codes to ''"
    )
  return open_stored(stored, data.source, split, sizes, text_tokenizer)


def _check(data: "DataSettings", split: str, text_tokenizer: "TextTokenizer", vocabulary: Vocabulary):
  if text_tokenizer.size > vocabulary.text_size:
    raise SettingsError(
      f"data.vocabulary={data.vocabulary!r} has {text_tokenizer.size} tokens, the model's vocabulary only "
      f"{vocabulary.text_size} text ids; build Vocabulary from this tokenizer's size"
    )
  if split not in SPLITS:
    raise ValueError(f"there is no split {split!r}; give one of {', '.join(SPLITS)}")
