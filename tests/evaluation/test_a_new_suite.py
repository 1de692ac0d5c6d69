"""A new suite is one file and one row: this one is written here, and nothing else is told of it."""

import dataclasses
import json

import numpy as np
import pytest

from omniimage.data.sources.emoji import EmojiSettings
from omniimage.errors import UserError
from omniimage.evaluation.evaluate import evaluate, summary
from omniimage.evaluation.held_out import drawn, graded_by, held_out
from omniimage.evaluation.markup import table
from omniimage.evaluation.suites import SUITES
from omniimage.evaluation.suites.suite import Pictures, Suite, counted
from omniimage.systems.omni import OmniSystem
from omniimage.workdir import Run
from tests import small
from tests.evaluation.fakes import FakeGenerator, recolored, settings

# ------------------------------------------------------------------------------------------------------ the new file


@dataclasses.dataclass(frozen=True, eq=False)
class Shades:
  """The shares of the pixels (n, H, W, 3) that differ in any channel, as gray pictures."""

  examples: object
  painted: np.ndarray

  def figures(self):
    return {"differ": float(self._differ().mean()), "prompts": len(self.painted)}

  def pictures(self):
    gray = np.repeat(255 * self._differ()[..., None].astype(np.uint8), 3, axis=-1)
    return Pictures(self.examples.captions, self.examples.images, {"what differs": gray})

  def _differ(self):
    return (self.painted != self.examples.images).any(-1)


class ShadesSuite(Suite):
  def misfit(self, source, learnt):
    return "" if graded_by(source, "binding") else f"measures scenes, and this run has learnt {learnt}"

  def run(self, generator, number, seed, batch, earlier):
    examples = held_out(generator, number, seed)
    return Shades(examples, drawn(generator, examples.captions, seed, batch).images)

  def section(self, figures):
    return table(["", "pixels that differ"], [["painted", f"{figures['differ']:.3f}"]])

  def lines(self, figures):
    return [f"{'shades':<26}{figures['differ']:>14.3f}   {counted(figures['prompts'], figures)}"]


# --------------------------------------------------------------------------------------------------------- the tests


@pytest.fixture(autouse=True)
def row(monkeypatch):
  monkeypatch.setitem(SUITES, "shades", ShadesSuite())
  monkeypatch.setattr(OmniSystem, "generator", lambda self, *_: FakeGenerator(self.settings, recolored))


def run(s=None) -> Run:
  return Run(s or settings(), {}, small.text_tokenizer(), step=3)


def html(folder) -> str:
  return (folder / "report.html").read_text()


def test_it_runs_by_its_name_and_later_reports_still_show_its_figures(tmp_path):
  figures = evaluate(run(), tmp_path, "shades", tmp_path, prompts=5, seed=0)
  own = figures["shades"]
  assert 0 < own["differ"] < 0.5 and (own["prompts"], own["asked"], own["step"]) == (5, 5, 3) and "sampling" in own
  assert summary(figures).startswith(f"shades{own['differ']:>34.3f}   5 held-out prompts, all different\n")
  assert html(tmp_path).count("<img") == 10 and 'alt="what differs: ' in html(tmp_path)
  evaluate(run(), tmp_path, "reconstruction", tmp_path, prompts=5, seed=0)
  assert json.loads((tmp_path / "report.json").read_text())["shades"] == own
  assert '<h2>Shades</h2><p class="conditions">step 3, seed 0' in html(tmp_path)
  assert f"<td>{own['differ']:.3f}</td>" in html(tmp_path)


def test_its_pictures_stand_beside_those_of_the_same_examples(tmp_path):
  figures = evaluate(run(), tmp_path, "all", tmp_path, prompts=5, seed=0)
  assert list(figures) == ["binding", "reconstruction", "seams", "quality", "shades", "seconds"]
  assert html(tmp_path).count('<table class="gallery">') == 1 and html(tmp_path).count("<img") == 5 * 6


def test_a_run_that_it_does_not_fit_is_refused_in_its_words(tmp_path):
  s = settings()
  emoji = dataclasses.replace(s, data=dataclasses.replace(s.data, source=EmojiSettings("emoji")))
  with pytest.raises(UserError, match=r"^shades measures scenes, and this run has learnt emoji; evaluate --suite=rec"):
    evaluate(run(emoji), tmp_path, "shades", tmp_path, prompts=5, seed=0)
