"""A mixture: several sources that answer as one, each drawn from by its weight."""

import itertools
import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from omniimage.data.batches import Batches
from omniimage.data.sources import SOURCES, open_source
from omniimage.data.sources.source import Catalogue, Row, Source, SourceSettings
from omniimage.errors import SettingsError, UserError
from omniimage.settings import from_config
from tests import small

SCENES = small.config().data.source.to_dict()
EMOJI = {"name": "emoji"}


def settings(*sources, weights, **changes):
  mixture = {"name": "mixture", "sources": sources, "weights": weights}
  return small.settings(**{"data.source": ConfigDict(mixture), "data.sequence_length": 96, **changes})


def opened(s, split="train"):
  return open_source(s.data, split, s.buckets, small.text_tokenizer(), small.omni(s).vocabulary)


def test_records_are_those_of_the_sources_one_after_another():
  s = settings(EMOJI, SCENES, weights=(1.0, 1.0))
  mixture, emojis, scenes = (
    opened(s),
    *(opened(small.settings(**{"data.source": x})) for x in map(ConfigDict, (EMOJI, SCENES))),
  )
  n = len(emojis)
  assert len(mixture) == n + len(scenes)
  for index, source, own in ((0, emojis, 0), (n - 1, emojis, n - 1), (n, scenes, 0), (n + 7, scenes, 7)):
    found, expected = (x.record(i, np.random.default_rng(0)) for x, i in ((mixture, index), (source, own)))
    assert found[0] == expected[0] and np.array_equal(found[1].image, expected[1].image)
    assert type(mixture.task(index)) is type(source.task(own)) and mixture.task(index) in mixture.tasks
  catalogue = mixture.catalogue()
  assert np.array_equal(catalogue.tokens[:n], emojis.catalogue().tokens) and catalogue.parts[0] == (n, 1.0)
  assert (mixture.key(3), mixture.key(n + 3)) == ("sources[0]: record 3", "sources[1]: record 3")


def test_batches_draw_from_each_source_by_weight():
  s = settings(EMOJI, SCENES, weights=(3.0, 1.0))
  mixture = opened(s)
  batches = Batches(mixture, s.data, small.omni(s).vocabulary, small.text_tokenizer(), s.buckets, s.seed)
  records = [record for index in range(64) for row in batches.record_ids(index, 16) for record in row]
  assert np.mean(np.array(records) < len(opened(settings(EMOJI, weights=(1.0,))))) == pytest.approx(0.75, abs=0.02)


def test_what_is_evaluated_first_is_of_all_sources():
  mixture = opened(settings(EMOJI, SCENES, SCENES, weights=(1.0, 1.0, 1.0)), "test")
  first = list(itertools.islice(mixture.distinct(), 300))
  keys = [mixture.key(i).partition(":")[0] for i in first]
  assert keys[:6] == ["sources[0]", "sources[1]", "sources[2]"] * 2
  assert len(set(first)) == 300 and keys.count("sources[0]") < 100 < keys.count("sources[1]"), "one ends, others go on"


def test_a_mixture_of_mixtures_has_their_weights():
  inner = {"name": "mixture", "sources": (SCENES, EMOJI), "weights": (3.0, 1.0)}
  parts = opened(settings(EMOJI, inner, weights=(2.0, 2.0))).catalogue().parts
  assert [weight for _, weight in parts] == [2.0, 1.5, 0.5]


@pytest.mark.parametrize(
  ("sources", "weights", "message"),
  [
    ((SCENES, EMOJI), (1.0,), "2 sources and 1 weights; give one weight for each"),
    ((), (), "0 sources and 0 weights"),
    ((SCENES,), (0.0,), r"data.source.weights\[0\]=0.0 must be from"),
    ((SCENES, {"name": "emojis"}), (1.0, 1.0), r"data.source.sources\[1\].name='emojis' is not a data source"),
    ((SCENES, {**EMOJI, "path": "x"}), (1.0, 1.0), r"data.source.sources\[1\].path is not a setting"),
  ],
)
def test_what_cannot_be_mixed_is_one_line(sources, weights, message):
  with pytest.raises(SettingsError, match=message) as error:
    settings(*sources, weights=weights)
  assert "\n" not in str(error.value)


def test_a_config_with_a_mixture_is_kept_and_read_again():
  config = small.config(**{"data.source": ConfigDict({"name": "mixture", "sources": (SCENES,), "weights": (1.0,)})})
  assert from_config(json.loads(json.dumps(config.to_dict()))) == from_config(config)


class Bucketed(Source):
  """Records of buckets, or none at all."""

  tasks = ()

  def __init__(self, n: int, buckets=None):
    self.n, self.buckets = n, buckets

  def __len__(self) -> int:
    return self.n

  def catalogue(self) -> Catalogue:
    return Catalogue(np.full(self.n, 9), np.zeros(self.n, int), self.buckets)

  def record(self, index, rng):
    return []

  def task(self, index):
    return None

  def distinct(self):
    if not self.n:
      raise UserError("nothing is held out")
    return range(self.n)


@pytest.fixture
def table(monkeypatch):
  """Adds rows that open these sources."""

  def add(*sources):
    for i, source in enumerate(sources):
      monkeypatch.setitem(SOURCES, f"source{i}", Row(SourceSettings, lambda *_, source=source: source))
    return settings(*({"name": f"source{i}"} for i in range(len(sources))), weights=(1.0,) * len(sources))

  return add


def test_records_without_a_bucket_are_of_the_first(table):
  s = table(Bucketed(2), Bucketed(3, np.array([1, 0, 2])))
  assert opened(s).catalogue().buckets.tolist() == [0, 0, 1, 0, 2]
  assert opened(table(Bucketed(2), Bucketed(3))).catalogue().buckets is None


def test_a_source_without_held_out_records_is_passed_over_and_all_without_say_so(table):
  assert list(opened(table(Bucketed(0), Bucketed(2)), "test").distinct()) == [0, 1]
  with pytest.raises(UserError, match="nothing is held out"):
    opened(table(Bucketed(0), Bucketed(0)), "test").distinct()
  with pytest.raises(SettingsError, match=r"sources\[0\], source0, has no records to train on; leave it out"):
    opened(table(Bucketed(0), Bucketed(2)))
