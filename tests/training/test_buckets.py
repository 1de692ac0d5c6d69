"""A run on images of several sizes: one compiled step a size, sheets of the first, and any of them can be drawn."""

import itertools
import json

import numpy as np
import pytest

from omniimage.data import conversation
from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.data.sources import SOURCES
from omniimage.data.sources.source import Catalogue, Row, Source, SourceSettings
from omniimage.data.tasks import TextToImage
from omniimage.evaluation.held_out import distinct, held_out, picked
from omniimage.sampling.generate import Generator
from omniimage.systems.omni import OmniSystem
from omniimage.training.loop import train
from tests import small

CAPTIONS = ("a red wall", "a blue wall")


class Walls(Source):
  """Every third picture is of the second size."""

  tasks = (TextToImage(),)

  def __init__(self, settings, split, sizes, text_tokenizer):
    self._sizes, self._split = sizes, split
    self._text = max(len(text_tokenizer.encode(caption)) for caption in CAPTIONS)

  def __len__(self) -> int:
    return 60

  def catalogue(self) -> Catalogue:
    buckets = np.arange(len(self)) % 3 == 0
    lengths = np.array([conversation.length(self._text, 1, size) for size in self._sizes])[buckets.astype(int)]
    return Catalogue(lengths, np.ones(len(self), int), buckets.astype(int))

  def record(self, index: int, rng: np.random.Generator):
    image = np.full((*self._sizes[int(index % 3 == 0)].pixels, 3), 3 * index + (self._split == "test"), np.uint8)
    return [TextTurn(CAPTIONS[index % 2], False), ImageTurn(image, True)]

  def task(self, index: int):
    return self.tasks[0]


@pytest.fixture
def config(monkeypatch):
  monkeypatch.setitem(SOURCES, "walls", Row(SourceSettings, Walls))
  config = small.config(
    **small.SHALLOW,
    **{"data.source": {"name": "walls"}, "data.aspect_ratios": ("1:1", "2:1"), "schedule": ("tokenizer",)},
  )
  config.stages.tokenizer.steps = 24
  config.run.update(log_every=1, checkpoint_every=12, sample_every=0)
  return config


def test_a_run_compiles_a_step_for_each_size_learns_goes_on_and_draws_both(config, monkeypatch, tmp_path, caplog):
  traced, losses = [], OmniSystem.losses

  def counted(self, stage, params, batch, *rest):
    traced.append(batch["images"].shape[2:4])
    return losses(self, stage, params, batch, *rest)

  monkeypatch.setattr(OmniSystem, "losses", counted)
  state = train(config, tmp_path)
  assert int(state.step) == 24 and set(traced) == {(16, 16), (8, 24)}, "a square, and 2:1 of about as many pixels"
  lines = [json.loads(line) for line in (tmp_path / "metrics/metrics.jsonl").read_text().splitlines()]
  assert len(lines) == 24 and all(np.isfinite(line["loss"]) for line in lines)
  compiling = [line["goodput/compile"] * line["wall_seconds"] for line in lines]
  assert sum(after > before + 0.05 for before, after in itertools.pairwise(compiling)) == 1, "the second size"
  assert (tmp_path / "samples/final.png").exists()
  assert caplog.text.count("drawn and measured are the 40 of 60 records that are of 16×16 pixels") == 1

  generator = Generator.from_workdir(tmp_path, "2:1")
  drawing = generator([CAPTIONS[0]], diffusion_steps=1)
  assert drawing.images.shape == drawing.rendering.shape == (1, 8, 24, 3)
  for examples in (held_out(generator, 5, 0), picked(generator, "train", 5, 0)):
    assert examples.images.shape == (5, 8, 24, 3)


def test_only_records_of_the_drawn_size_are_evaluated_in_order(config):
  s = small.from_config(config)
  source = Walls(None, "test", s.buckets, small.text_tokenizer())
  assert list(distinct(source, s)) == [i for i in range(60) if i % 3]
