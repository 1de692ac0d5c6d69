"""What a format must answer so that `launch.prepare` can turn it into a data set."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from omniimage.data.records import Record
from omniimage.errors import SettingsError


@dataclass(frozen=True)
class Given:
  """What a format is told beside its path, of the flags of `launch.prepare`. Empty: what the format finds by itself.

  Attributes:
    image_column: the field that names or holds the picture.
    caption_columns: fields with a caption each, alternatives; or templates over fields, as "{label} in {style} style".
    split_column: the field that says "train" or "test".
    metadata: the file that lists the pictures, relative to the source.
    mapping: of a TFDS data set's features, or templates over them, to the role that shows or says them, in order:
      {"{label}": "user", "image": "assistant"}.
  """

  image_column: str = ""
  caption_columns: Sequence[str] = ()
  split_column: str = ""
  metadata: str = ""
  mapping: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Unit:
  """A share of a source, which one process converts at a time: a file, or some thousand rows of one. Picklable.

  Attributes:
    name: unlike that of any other unit, and the same each time the source is opened.
    content: what the format needs to find its rows again.
    rows: how many it has, where that is known before they are read; else 0.
  """

  name: str
  content: Any
  rows: int = 0


@dataclass(frozen=True)
class Row:
  """A row of a source: a record, or the reason why it is none.

  Attributes:
    key: as the record's, so that its owner finds it.
    problem: empty, or one line: "no caption: notes.txt is empty", "truncated: …".
    split: "train" or "test" where the source says so; None: it is held out or not by a hash.
  """

  key: str
  record: Record | None = None
  problem: str = ""
  split: str | None = None


class Format(Protocol):
  """A source on disk that has been opened. Opening it raises UserError where it can never give a record: a path that is
  not there, a column that does not exist (with those that do), no caption at all."""

  def found(self) -> str:
    """What was taken for what, on one line: "file_name and text of metadata.jsonl"."""

  def units(self) -> Sequence[Unit]:
    """In order; the same each time."""

  def rows(self, unit: Unit) -> Iterator[Row]:
    """In order. One bad row is a Row with a problem and never an exception; a unit that cannot be read further is
    too, as its last row."""

  def fingerprint(self) -> str:
    """Of what would be converted (names, sizes, times of change; not the content): a partial conversion goes on only
    with the same."""


def mapping_of(pairs: Sequence[str], where: str) -> dict[str, str]:
  """Features to roles, of FEATURE=ROLE each. SettingsError, with `where` they were given, unless each is."""
  for pair in pairs:
    if not all(pair.rpartition("=")):
      raise SettingsError(f'{where}: {pair!r} must be FEATURE=ROLE, as "image=assistant"')
  return {feature: role for feature, _, role in (pair.rpartition("=") for pair in pairs)}
