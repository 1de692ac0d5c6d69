"""Evaluation over devices comes to the figures of one."""

import json

import jax
import numpy as np
import pytest

from omniimage.distributed.spread import Spread
from omniimage.evaluation import evaluate as module
from omniimage.evaluation.evaluate import evaluate
from omniimage.evaluation.held_out import drawn, held_out
from omniimage.sampling.generate import Generator
from omniimage.systems import load_run
from omniimage.workdir import Run
from tests import small
from tests.launch.random_run import random_run
from tests.process_of_a_run import Run as Processes


def run() -> Run:
  settings = small.settings(**small.SHALLOW)
  return Run(settings, small.params(small.omni(settings)), small.text_tokenizer(), 1)


def spread() -> Spread:
  return Spread(tuple(jax.devices()[:4]))


def test_captions_are_drawn_as_on_one_device():
  """Six in batches of five, which no four devices divide."""
  own, alone = run(), small.generator()
  over = Generator(own.settings, own.params, own.text_tokenizer, spread())
  captions = held_out(alone, 6, 0).captions
  here, there = (drawn(generator, captions, 3, 5) for generator in (over, alone))
  np.testing.assert_array_equal(here.codes, there.codes)
  for name in ("images", "rendering"):
    np.testing.assert_allclose(getattr(here, name).astype(int), getattr(there, name).astype(int), atol=1)


def test_answers_in_words_and_pictures_are_those_of_one_device():
  own, alone = run(), small.generator()
  over = Generator(own.settings, own.params, own.text_tokenizer, spread())
  star = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
  asked, seeds = [["a large red star"], [star, "make it blue"], ["a small circle"]], [3, 2**40, 5]
  assert over.write_after(asked, seeds) == alone.write_after(asked, seeds)
  here, there = (generator.draw_after(asked, seeds) for generator in (over, alone))
  np.testing.assert_array_equal(here.codes, there.codes)
  np.testing.assert_allclose(here.images, there.images, atol=1e-3)


def test_figures_are_those_of_one_device(tmp_path):
  figures = [
    evaluate(run(), tmp_path, "reconstruction", tmp_path / name, prompts=6, seed=0, batch=5, spread=over)
    for name, over in (("one", None), ("four", spread()))
  ]
  one, four = (own["reconstruction"] for own in figures)
  assert one.keys() == four.keys()
  for name, value in one.items():
    np.testing.assert_allclose(four[name], value, rtol=1e-3, err_msg=name)


def test_only_the_first_process_writes_the_report(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  monkeypatch.setattr(module, "write_report", lambda *_: pytest.fail("the second process writes"))
  assert "reconstruction" in evaluate(run(), tmp_path, "reconstruction", tmp_path / "report", prompts=2, seed=0)


def test_two_processes_come_to_the_figures_of_one_and_write_one_report(tmp_path):
  random_run(tmp_path / "run", **small.SHALLOW)
  given = f"--workdir={tmp_path / 'run'}", "--suite=reconstruction", "--prompts=6", f"--out={tmp_path / 'two'}"
  with Processes(2, *given, module="launch.evaluate") as processes:
    assert processes.codes(100) == [0, 0], processes.said()
    assert ["report: " in said for said in processes.said()] == [True, False]
  one = evaluate(load_run(tmp_path / "run"), tmp_path / "run", "reconstruction", tmp_path / "one", prompts=6, seed=0)
  two = json.loads((tmp_path / "two" / "report.json").read_text())
  for name, value in one["reconstruction"].items():
    np.testing.assert_allclose(two["reconstruction"][name], value, rtol=1e-3, err_msg=name)
