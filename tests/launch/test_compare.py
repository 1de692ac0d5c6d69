"""launch.evaluate --compare: runs beside each other on one page."""

import json
import re

import numpy as np
import pytest

from omniimage.evaluation.compare import UNDRAWN, flattened, titles
from omniimage.files import write_whole
from tests import small
from tests.evaluation.test_report import Page, metrics_file
from tests.launch.in_process import call
from tests.launch.random_run import random_run

OF_ONE_OBJECT = {"data.source.max_objects": 1, "data.sequence_length": 24}
MEASURED = {"objects": 0.5, "by_count": {"1": 1.0, "2": 0.25}, "step": 1, "sampling": {"temperature": 0.0}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """Two runs of one name, one of them with figures and losses, and one that cannot read long captions."""
  folder = tmp_path_factory.mktemp("runs")
  random_run(folder / "a" / "mine", **small.SHALLOW)
  random_run(folder / "b" / "mine", **small.SHALLOW, **{"seed": 3, **OF_ONE_OBJECT})
  for name, losses in (("a", (2.0, 1.0)), ("b", (4.0, 3.0))):
    lines = [{"step": 10 * i, "stage": "prior", "image": loss} for i, loss in enumerate(losses, 1)]
    metrics_file(folder / name / "mine" / "metrics", lines)
  report = {"binding": MEASURED, "seconds": {"binding": 1.0}, "of another": 3}
  write_whole(folder / "a" / "mine" / "report.json", json.dumps(report).encode())
  return folder


@pytest.fixture(scope="module")
def page(runs) -> Page:
  call("evaluate", f"--compare={runs}/a/mine,{runs}/b/mine", f"--out={runs}/compared", "--prompts=4")
  return Page(runs / "compared" / "compare.html")


def test_every_caption_is_drawn_by_every_run(page):
  captions = {re.sub("^.*?: ", "", alternative) for alternative, _ in page.pictures}
  assert len(page.pictures) == 8 and len(captions) == 4 and all(caption in page.text for caption in captions)
  first, second = page.pictures[::2], page.pictures[1::2]
  assert all(alternative.startswith("1 a/mine: ") for alternative, _ in first)
  assert all(alternative.startswith("2 b/mine: ") for alternative, _ in second)
  assert not any((pixels == UNDRAWN).all() for _, pixels in first)
  refused = sum((pixels == UNDRAWN).all() for _, pixels in second)
  assert 0 < refused < 4 and page.text.count("the model reads at most") == refused


def test_what_differs_is_said_and_what_does_not_is_not(page, runs):
  html = (runs / "compared" / "compare.html").read_text()
  assert "<tr><th>seed</th><td>0</td><td>3</td></tr>" in html and "prior.width" not in html
  assert "<tr><th>by_count.2</th><td>0.25</td><td>–</td></tr>" in html and "of another" not in html
  assert "2 b/mine has no figures" in page.text and "1 a/mine has no figures" not in page.text


def test_losses_of_both_are_in_one_chart_from_the_beginning_of_the_stage(page, runs):
  html = (runs / "compared" / "compare.html").read_text()
  assert html.count("<svg") == 1 and html.count("<polyline") == 2 and "prior: image" in html
  assert "1 1<" in html and "2 3<" in html and '"start">0<' in html and '"end">10<' in html


def test_the_page_needs_nothing_else_and_nothing_was_written_to_the_runs(page, runs):
  assert all(source.startswith("data:image/png;base64,") for source in page.sources)
  assert sorted(path.name for path in (runs / "b" / "mine").iterdir()) == [
    "checkpoints", "config.json", "metrics", "samples"
  ]  # fmt: skip


@pytest.mark.parametrize("flags, message", [
  (["--compare=a/mine"], "takes two to 8 runs"),
  (["--compare=a/mine,a/../a/mine"], "there twice"),
  (["--compare=a/mine,b"], "b is not a run"),
  (["--compare=a/mine,b/mine", "--workdir=a/mine"], "--workdir measures one run"),
  (["--compare=a/mine,b/mine", "--suite=binding"], "--suite measures one run"),
])  # fmt: skip
def test_a_wrong_comparison_is_one_line(runs, monkeypatch, capsys, flags, message):
  monkeypatch.chdir(runs)
  with pytest.raises(SystemExit):
    call("evaluate", *flags, "--out=never")
  said = capsys.readouterr().err
  assert message in said and said.count("\n") == 1 and not (runs / "never" / "compare.html").exists()


def test_where_it_goes_must_be_said(runs, monkeypatch, capsys):
  monkeypatch.chdir(runs)
  with pytest.raises(SystemExit):
    call("evaluate", "--compare=a/mine,b/mine")
  assert "give --out" in capsys.readouterr().err


def test_a_broken_report_is_named(runs, tmp_path, capsys):
  random_run(tmp_path / "c", **small.SHALLOW)
  write_whole(tmp_path / "c" / "report.json", b"[")
  with pytest.raises(SystemExit):
    call("evaluate", f"--compare={runs}/a/mine,{tmp_path}/c", f"--out={tmp_path}/compared")
  assert "report.json is not a report" in capsys.readouterr().err


def test_titles_are_as_short_as_they_can_be(tmp_path):
  assert titles([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
  assert titles([tmp_path / "a" / "x", tmp_path / "b" / "x", tmp_path / "b" / "y"]) == ["a/x", "b/x", "b/y"]
  assert titles([tmp_path / "x", tmp_path / "y" / "x"])[1] == "y/x"


def test_groups_are_flattened():
  assert flattened({"a": {"b": 1, "c": {"d": (2, 3)}}, "e": None}) == {"a.b": 1, "a.c.d": (2, 3), "e": None}
  assert np.isnan(flattened({"a": {"b": float("nan")}})["a.b"])
