"""The built-in emoji, at 64 pixels as PNG."""

import hashlib
from collections.abc import Iterator, Sequence

from omniimage.data import emoji
from omniimage.data.formats.format import Given, Row, Unit
from omniimage.data.formats.scenes import alternatives, png, ranges
from omniimage.data.formats.survey import Survey
from omniimage.data.records import captioned

NAME = "emoji"


def fits(survey: Survey) -> bool:
  return survey.source == NAME


def open_emoji(source: str, given: Given) -> "Emoji":
  return Emoji()


class Emoji:
  """Units are ranges of the concepts of a split."""

  def found(self) -> str:
    return "the built-in emoji"

  def units(self) -> Sequence[Unit]:
    return ranges({split: len(emoji.indices(split)) for split in emoji.SPLITS})

  def rows(self, unit: Unit) -> Iterator[Row]:
    split, start, stop = unit.content
    everything = emoji.load()
    for i in emoji.indices(split)[start:stop]:
      concept = everything.concepts[i]
      key = f"emoji/{concept.hexcode}"
      captions = alternatives(lambda rng, concept=concept: emoji.caption(concept, rng), int(i))
      yield Row(key, captioned(key, captions, png(everything.images[i])), split=split)

  def fingerprint(self) -> str:
    return hashlib.sha256((emoji.FILES / "concepts.jsonl").read_bytes()).hexdigest()
