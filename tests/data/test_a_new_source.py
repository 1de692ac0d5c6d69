"""A new source is one file and one row: this one is written here, and nothing else is told of it."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pytest

from omniimage.data import conversation
from omniimage.data.batches import Batches
from omniimage.data.sources import SOURCES, open_source
from omniimage.data.sources.source import Catalogue, Row, Source, SourceSettings
from omniimage.data.tasks import TextToImage
from omniimage.errors import SettingsError
from omniimage.evaluation.suites import suites_of
from omniimage.ranges import Range
from omniimage.settings import from_config
from omniimage.systems import open_system
from tests import small

# ------------------------------------------------------------------------------------------------------ the new file


@dataclass(frozen=True)
class GraySettings(SourceSettings):
  levels: Annotated[int, Range(2, 256)]


class Gray(Source):
  """Flat gray pictures, each with the name of its level."""

  def __init__(self, settings, split, sizes, text_tokenizer):
    self.tasks = (TextToImage(),)
    first = 0 if split == "train" else 1  # every other one is held out
    self._levels = np.linspace(0, 255, settings.levels).astype(np.uint8)[first::2]
    self._size = sizes[0]
    self._text = np.array([len(text_tokenizer.encode(self._caption(level))) for level in self._levels])

  def _caption(self, level: int) -> str:
    return f"gray {level}"

  def __len__(self):
    return len(self._levels)

  def catalogue(self):
    return Catalogue(conversation.length(self._text, 1, self._size), np.ones(len(self), int))

  def record(self, index, rng):
    image = np.full((*self._size.pixels, 3), self._levels[index])
    return self.tasks[0].turns((self._caption(self._levels[index]), image), rng)

  def task(self, index):
    return self.tasks[0]


# --------------------------------------------------------------------------------------------------------- the tests


@pytest.fixture(autouse=True)
def row(monkeypatch):
  monkeypatch.setitem(SOURCES, "gray", Row(GraySettings, Gray))


def config(**source):
  return small.config(**{"data.source": {"name": "gray", **source}})


def test_a_config_names_it_and_its_batches_hold_its_records():
  s = from_config(config(levels=32))
  assert s.data.source == GraySettings("gray", levels=32)
  text_tokenizer, vocabulary = small.text_tokenizer(), small.omni(s).vocabulary
  train, test = (open_source(s.data, split, s.buckets, text_tokenizer, vocabulary) for split in ("train", "test"))
  batches = Batches(train, s.data, vocabulary, text_tokenizer, s.buckets, s.seed)
  batch = batches.batch(0, rows=8)
  shown = set(batch["images"][batch["image_mask"]][:, 0, 0, 0].tolist())
  held_out = {test.record(i, np.random.default_rng(0))[1].image[0, 0, 0] for i in test.distinct()}
  assert not batches.bad_records and len(shown) > 8 and not shown & held_out
  assert suites_of("all", test, open_system(s, text_tokenizer.size)) == ("reconstruction", "seams", "quality")


@pytest.mark.parametrize(
  "source, said",
  [
    ({"levels": 1}, "config.data.source.levels=1 must be from 2 to 256"),
    ({"level": 9}, "config.data.source.level is not a setting; did you mean config.data.source.levels?"),
    ({}, "config.data.source.levels is missing"),
  ],
)
def test_its_settings_are_checked_as_all_others(source, said):
  with pytest.raises(SettingsError) as refused:
    from_config(config(**source))
  assert str(refused.value).startswith(said)
