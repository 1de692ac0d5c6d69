"""The report: figures that other programs read, and one page that needs nothing else and shows every error."""

import base64
import dataclasses
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from omniimage.data.sources import open_source
from omniimage.errors import UserError
from omniimage.evaluation import curves
from omniimage.evaluation.evaluate import evaluate, summary
from omniimage.evaluation.held_out import Examples
from omniimage.evaluation.report import SHOWN, Conditions, Results, merged, write_report
from omniimage.evaluation.suites import suites_of
from omniimage.evaluation.suites.binding import binding
from omniimage.evaluation.suites.reconstruction import Reconstruction, reconstruction
from omniimage.evaluation.suites.seams import seams, seams_of
from omniimage.workdir import Run
from tests import small
from tests.evaluation.fakes import FakeGenerator, recolored, settings

FACTS = {"run": "demo"}
CONDITIONS = Conditions(step=7, seed=0, asked=12, sampling=settings().sampling)
NOWHERE = Path("no/metrics.jsonl")


class Page(HTMLParser):
  """What a browser makes of a report: every tag closed in order, its pictures, its text."""

  def __init__(self, path: Path):
    super().__init__()
    self.open, self.tags, self.pictures, self.sources, self.text = [], [], [], [], ""
    self.feed(path.read_text())
    assert self.open == []

  def handle_starttag(self, tag, attributes):
    self.tags.append(tag)
    attributes = dict(attributes)
    self.sources += [attributes[name] for name in ("src", "href") if name in attributes]
    if tag == "img":
      data = base64.b64decode(attributes["src"].removeprefix("data:image/png;base64,"))
      self.pictures.append((attributes["alt"], np.asarray(Image.open(io.BytesIO(data)))))
    elif tag != "meta":
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_startendtag(self, tag, attributes):
    self.tags.append(tag)

  def handle_data(self, data):
    self.text += data


def test_figures_are_written_as_they_were_measured(tmp_path):
  s = settings()
  result = binding(FakeGenerator(s, recolored), 12, seed=0)
  figures = write_report(tmp_path, Results(CONDITIONS, {"binding": 1.5}, {"binding": result}), FACTS, NOWHERE)
  assert json.loads((tmp_path / "report.json").read_text()) == figures
  conditions = {"step": 7, "seed": 0, "asked": 12, "sampling": dataclasses.asdict(s.sampling)}
  assert figures == {"binding": {**result.figures(), **conditions}, "seconds": {"binding": 1.5}}
  assert set(figures["binding"]) >= {"objects", "scenes", "prompts", "by_count", "rendering", "true_tokens"}


def test_figures_of_other_suites_stay_and_those_of_the_same_are_replaced(tmp_path):
  s = settings()
  earlier = {"binding": {"objects": 0.1}, "quality": {"fid": 3}, "seconds": {"binding": 9.0, "quality": 1.0}}
  seen = reconstruction(FakeGenerator(s), 4, 0)
  new = Results(CONDITIONS, {"reconstruction": 2.0}, {"reconstruction": seen}).figures()
  figures = merged(earlier, new)
  assert list(figures) == ["binding", "reconstruction", "quality", "seconds"]
  assert figures["binding"] == earlier["binding"] and figures["reconstruction"]["psnr_db"] == 100
  assert figures["seconds"] == {"binding": 9.0, "quality": 1.0, "reconstruction": 2.0}
  assert merged(figures, {"binding": {"objects": 0.9}, "seconds": {}})["binding"] == {"objects": 0.9}


def test_a_report_of_several_calls_shows_each_suites_own_conditions_above_its_figures(tmp_path):
  s = settings()
  warm = dataclasses.replace(s.sampling, temperature=0.75)
  first = Results(Conditions(7, 3, 5, warm), {}, {"binding": binding(FakeGenerator(s), 5, seed=3)})
  write_report(tmp_path, first, FACTS, NOWHERE)
  then = Results(Conditions(9, 4, 6, s.sampling), {}, {"seams": seams(FakeGenerator(s), 6, seed=4)})
  figures = write_report(tmp_path, then, FACTS, NOWHERE)
  said = [[figures[suite][key] for key in ("step", "seed", "asked")] for suite in ("binding", "seams")]
  assert said == [[7, 3, 5], [9, 4, 6]]
  assert [figures[suite]["sampling"]["temperature"] for suite in ("binding", "seams")] == [0.75, 0]
  _, bound, seamless, drawn = re.split("<h2>", (tmp_path / "report.html").read_text())
  assert "step 7, seed 3, temperature 0.75," in bound and "step 9, seed 4, temperature 0," in seamless
  assert "step 9, seed 4, temperature 0," in drawn


def test_a_report_of_before_that_recorded_less_can_be_added_to(tmp_path):
  s = settings()
  old = {**binding(FakeGenerator(s), 5, seed=0).figures(), "step": 3}
  del old["prompts_by_count"]
  (tmp_path / "report.json").write_text(json.dumps({"binding": old, "seconds": {}}))
  new = Results(CONDITIONS, {}, {"reconstruction": reconstruction(FakeGenerator(s), 4, 0)})
  figures = write_report(tmp_path, new, FACTS, NOWHERE)
  assert figures["binding"] == old and "sampling" not in figures["reconstruction"]
  assert "step 3, seed not recorded" in (tmp_path / "report.html").read_text()


def test_a_world_of_fewer_scenes_than_asked_for_is_said_in_every_report(tmp_path):
  s = settings()
  world = dataclasses.replace(s.data.source, max_objects=1)
  s = dataclasses.replace(s, data=dataclasses.replace(s.data, source=world))
  found = binding(FakeGenerator(s), 256, seed=0)
  found = {"binding": found, "reconstruction": reconstruction(FakeGenerator(s), 256, 0), "seams": seams_of(found, s)}
  results = Results(Conditions(7, 0, 256, s.sampling), {}, found)
  figures = write_report(tmp_path, results, FACTS, NOWHERE)
  assert (figures["binding"]["prompts"], figures["binding"]["asked"]) == (24, 256)
  assert figures["binding"]["prompts_by_count"] == {"1": 24} and figures["reconstruction"]["images"] == 24
  for text in ((tmp_path / "report.html").read_text(), summary(figures)):
    for what in ("scenes", "images", "prompts"):
      assert f"24 held-out {what}, all different; 256 were asked for, and the test split has no more" in text
  assert "1: 100.0 % of 24" in summary(figures)


def test_figures_that_are_not_finite_are_strict_json_and_stay_beside_new_ones(tmp_path):
  images = np.zeros((1, 8, 8, 3), np.uint8)
  shown = Reconstruction(Examples(("a",), images), images, images, np.zeros((1, 1, 1), int), 4)
  figures = {**shown.figures(), "psnr_db": float("nan")}
  object.__setattr__(shown, "figures", lambda: figures)
  write_report(tmp_path, Results(CONDITIONS, {"reconstruction": 1.0}, {"reconstruction": shown}), FACTS, NOWHERE)
  read = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
  assert read["reconstruction"]["psnr_db"] is None and read["reconstruction"]["not_finite"] == {"psnr_db": "nan"}
  write_report(tmp_path, Results(CONDITIONS, {}), FACTS, NOWHERE)
  assert json.loads((tmp_path / "report.json").read_text()) == read
  html = (tmp_path / "report.html").read_text()
  assert "nan dB" in html and "<h2>Pictures" not in html


@pytest.mark.parametrize("text", ["{", "[]", '{"seconds": 3}', '{"seams": {}}'])
def test_a_broken_earlier_report_is_refused_before_it_is_lost(tmp_path, text):
  (tmp_path / "report.json").write_text(text)
  with pytest.raises(UserError, match="delete it or change --out"):
    write_report(tmp_path, Results(CONDITIONS, {}), FACTS, NOWHERE)
  assert (tmp_path / "report.json").read_text() == text


def test_the_page_holds_every_picture_and_marks_what_is_wrong(tmp_path):
  s = settings()
  result = binding(FakeGenerator(s, recolored), SHOWN + 6, seed=0)
  write_report(tmp_path, Results(CONDITIONS, {"binding": 1.0}, {"binding": result}), FACTS, NOWHERE)
  page = Page(tmp_path / "report.html")
  assert len(page.pictures) == 5 * (SHOWN + 6)  # the first, and all that is wrong among the others
  alternative, pixels = page.pictures[4]
  assert alternative == f"sampled tokens, painted: {result.captions[0]}"
  assert (pixels == result.answers["painted"][0].image).all() and (page.pictures[0][1] == result.images[0]).all()
  assert page.tags.count("i") == page.text.count(" instead of ") == 2 * (SHOWN + 6)  # of both kinds of painted pictures
  assert all(caption in page.text for caption in result.captions)


def test_the_frame_is_round_the_wrong_cell(tmp_path):
  s = settings()
  result = binding(FakeGenerator(s, recolored), 1, seed=0)
  write_report(tmp_path, Results(CONDITIONS, {"binding": 1.0}, {"binding": result}), FACTS, NOWHERE)
  row, column = result.scenes[0].objects[0].cell
  frame = f'<i style="left:{50 * column}%;top:{50 * row}%;width:50%;height:50%"></i>'
  assert (tmp_path / "report.html").read_text().count(frame) == 2


def test_the_page_needs_no_other_resource(tmp_path):
  s = settings()
  result = binding(FakeGenerator(s), 2, seed=0)
  write_report(tmp_path, Results(CONDITIONS, {"binding": 1.0}, {"binding": result}), FACTS, NOWHERE)
  page = Page(tmp_path / "report.html")
  assert page.sources and all(source.startswith("data:image/png;base64,") for source in page.sources)
  assert not {"script", "link", "iframe"} & set(page.tags) and "url(" not in (tmp_path / "report.html").read_text()


def test_captions_cannot_write_html(tmp_path):
  caption = '<script>alert("x")</script> & <b>'
  images = np.zeros((1, 8, 8, 3), np.uint8)
  shown = Reconstruction(Examples((caption,), images), images, images, np.zeros((1, 1, 1), int), 4)
  results = Results(CONDITIONS, {"reconstruction": 1.0}, {"reconstruction": shown})
  write_report(tmp_path, results, {"run": caption}, NOWHERE)
  page = Page(tmp_path / "report.html")
  assert "script" not in page.tags and "b" not in page.tags
  assert caption in page.text and page.pictures[0][0] == f"true: {caption}"


# ----------------------------------------------------------------------------------------------------------- curves


def metrics_file(folder: Path, lines: list[dict]) -> Path:
  path = folder / "metrics.jsonl"
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  return path


def test_each_stage_has_its_curve_of_the_terms_it_trains(tmp_path):
  lines = [{"step": i, "stage": "tokenizer", "loss": 1 / i, "pixel": 1 / i, "learning_rate": 1e-3} for i in range(1, 9)]
  lines += [{"step": i, "stage": "joint", "loss": 3.0, "image": 2.0, "pixel": 1.0, "grad_norm": 9} for i in (9, 10)]
  lines.append({"step": 11, "stage": "joint", "loss": float("nan")})
  path = metrics_file(tmp_path, lines)
  with path.open("a") as file:
    file.write('{"step": 12, "stage": 3, "loss": 1.0}\n{"step": 12, "stage": "jo')  # killed while it wrote
  with path.open("ab") as file:
    file.write(b"\xff")
  read = curves.read_losses(path)
  assert {stage: sorted(series) for stage, series in read.items()} == {
    "tokenizer": ["pixel"],  # the loss is the same
    "joint": ["image", "loss", "pixel"],
  }
  assert read["joint"]["loss"] == [(9, 3.0), (10, 3.0)]
  svg = curves.curves(read)
  assert svg.count("<svg") == 2 and svg.count("<polyline") == 4 and "nan" not in svg


def test_a_line_begins_and_ends_where_its_values_lie_on_the_scale():
  svg = curves.chart("prior", {"image": [(0, 10.0), (50, 10.0), (100, 0.0)]})
  points = re.search(r'points="([^"]+)"', svg)[1].split()
  (first_x, first_y), (last_x, last_y) = (tuple(map(float, points[i].split(","))) for i in (0, -1))
  assert (first_x, last_x) == (curves.LEFT, curves.WIDTH - curves.RIGHT)
  assert (first_y, last_y) == (curves.TOP, curves.HEIGHT - curves.BOTTOM)


@pytest.mark.parametrize("low, high", [(0.013, 7.1), (1, 10.5), (1e-5, 3), (0.5, 500)])
def test_logarithmic_ticks_enclose_the_values(low, high):
  ticks = curves.log_ticks(low, high)
  assert ticks[0] <= low < ticks[1] and ticks[-2] < high <= ticks[-1] and len(ticks) <= 12


@pytest.mark.parametrize("low, high", [(0, 1), (2.3, 2.9), (-4, 11), (7, 7), (0, 0), (99.7, 100.2)])
def test_linear_ticks_enclose_the_values(low, high):
  ticks = curves.linear_ticks(low, high)
  assert ticks[0] <= low and high <= ticks[-1] and 2 <= len(ticks) <= 7


def test_long_runs_are_drawn_by_their_means():
  thin = curves.thinned([(i, i % 2) for i in range(10_000)])
  assert len(thin) == curves.MAX_POINTS and all(value == 0.5 for _, value in thin) and thin[-1][0] == 9_999


# ---------------------------------------------------------------------------------------------------------- command


def a_run() -> Run:
  s = small.settings(**{"prior.depth": 1, "decoder.depth": 1})
  rng, shapes = np.random.default_rng(0), jax.eval_shape(small.omni(s).init, jax.random.key(0))
  params = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(x.dtype), shapes)
  return Run(s, params, small.text_tokenizer(), step=3, seconds={"prior": 60.0})


def test_all_suites_of_a_real_model_make_one_report(tmp_path):
  metrics_file(tmp_path, [])
  figures = evaluate(a_run(), tmp_path, "all", tmp_path / "out", prompts=6, seed=0, batch=4)
  assert figures == json.loads((tmp_path / "out" / "report.json").read_text())
  assert list(figures) == ["binding", "reconstruction", "seams", "quality", "seconds"]
  assert list(figures["seconds"]) == ["prior", "binding", "reconstruction", "seams", "quality", "evaluate"]
  assert figures["binding"]["prompts"] == figures["reconstruction"]["images"] == figures["seams"]["prompts"] == 6
  assert 0 <= figures["binding"]["objects"] <= 1 and figures["seams"]["ratio"] > 0 and figures["seams"]["chunks"] == 2
  page = Page(tmp_path / "out" / "report.html")
  assert len(page.pictures) == 6 * 5


def test_suites_are_those_that_fit_the_run():
  of_emoji, of_scenes = (small.system(small.settings(**own)) for own in ({"data.source": {"name": "emoji"}}, {}))
  emoji, scenes = (
    (open_source(s.settings.data, "test", s.settings.buckets, small.text_tokenizer(), s.vocabulary), s)
    for s in (of_emoji, of_scenes)
  )
  assert suites_of("all", *emoji) == ("reconstruction", "seams", "quality")
  assert suites_of("all", *scenes) == ("binding", "reconstruction", "seams", "quality")
  assert suites_of("binding", *scenes) == ("binding",)
  with pytest.raises(UserError, match="this run has learnt emoji"):
    suites_of("binding", *emoji)
  with pytest.raises(UserError, match=r"no suite 'fid'; give one of binding, caption, .*, quality, or all"):
    suites_of("fid", *emoji)


@pytest.mark.parametrize(
  "flags, message",
  [
    ([], "error: give --workdir=runs/scenes, the run to evaluate"),
    (["--workdir=nothing/here"], f"error: {Path('nothing/here').absolute()} is not a run"),
    (["--workdir=x", "--prompts=0"], "error: --prompts=0: "),
  ],
)
def test_wrong_flags_are_one_line_and_exit_code_two(flags, message):
  done = subprocess.run([sys.executable, "-m", "launch.evaluate", *flags], capture_output=True, text=True)
  assert done.returncode == 2 and done.stdout == ""
  assert done.stderr.startswith(message) and done.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_drawn(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(UserError, match="file: File exists; choose another --out"):
    evaluate(Run(small.settings(), {}, small.text_tokenizer(), 0), tmp_path, "all", tmp_path / "file", 4, 0)
