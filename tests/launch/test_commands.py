"""The commands as a user types them: train, the same again, sample, evaluate."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from omniimage.checkpoint import Checkpoints

SIZE = 16  # pixels: two cells a side, about the smallest that the grader reads
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"  # to compile, as in conftest.py
PARTS, STAGES = ("tokenizer", "prior", "decoder"), ("tokenizer", "prior", "decoder", "joint")
MINUSCULE = [
  f"--config.data.image_size={SIZE}",
  "--config.data.source.max_objects=1",
  "--config.data.packing_rows=16",
  "--config.prior.depth=1",
  "--config.decoder.depth=1",
  "--config.sampling.diffusion_steps=2",
  "--config.run.sample_every=0",
  *(f"--config.{part}.{key}=32" for part in PARTS for key in ("width", "mlp_width")),
  *(f"--config.stages.{stage}.{key}=2" for stage in STAGES for key in ("steps", "rows", "warmup_steps")),
]


def command(module: str, *args) -> subprocess.CompletedProcess:
  """In a process of its own, on one device."""
  environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": QUICK}
  argv = [sys.executable, "-m", f"launch.{module}", *map(str, args)]
  done = subprocess.run(argv, capture_output=True, text=True, env=environment)
  assert done.returncode == 0, done.stderr
  return done


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run")
  train = "train", "--config=configs/scenes.py:tiny", f"--workdir={workdir}", *MINUSCULE
  return workdir, command(*train), command(*train)


def test_train_leaves_a_run_behind_and_shows_only_its_progress(run):
  workdir, first, _ = run
  assert Checkpoints(workdir / "checkpoints").latest() == 8
  assert json.loads((workdir / "config.json").read_text())["data"]["image_size"] == SIZE
  stages = [json.loads(line)["stage"] for line in (workdir / "metrics" / "metrics.jsonl").read_text().splitlines()]
  assert tuple(stages) == STAGES
  assert list((workdir / "metrics").glob("events.*"))
  assert {path.name for path in (workdir / "samples").iterdir()} == {
    "000002.png", "000004.png", "000006.png", "000008.png", "final.png"
  }  # fmt: skip
  said = first.stderr.splitlines()
  assert all(line.split()[0] in STAGES for line in said), first.stderr
  assert "joint 2/2" in said[-1] and "is trained, 8 steps" in first.stdout


def test_the_same_command_again_finds_nothing_to_do(run):
  workdir, _, second = run
  assert second.stderr == "goes on from step 8 of 8\n" and "is trained, 8 steps" in second.stdout
  assert len((workdir / "metrics" / "metrics.jsonl").read_text().splitlines()) == 4


def test_sample_draws_a_prompt(run, tmp_path):
  out = tmp_path / "star.png"
  done = command(
    "sample", f"--workdir={run[0]}", "--prompt=a large red star in the top left", f"--out={out}", "--num_images=2",
    "--guidance=1.5", "--seed=3", "--scale=2",
  )  # fmt: skip
  assert done.stdout == f"{out}: 2 drawn at step 8 of the run\n" and not done.stderr
  with Image.open(out) as picture:
    assert picture.format == "PNG" and picture.mode == "RGB" and picture.size == (2 * 2 * SIZE, 2 * SIZE)


def test_sample_draws_captions_of_a_split(run, tmp_path):
  out = tmp_path / "unseen.png"
  done = command("sample", f"--workdir={run[0]}", "--split=test", f"--out={out}", "--num_images=4")
  assert done.stdout == f"{out}: 4 drawn at step 8 of the run\n" and not done.stderr
  with Image.open(out) as picture:
    assert picture.format == "PNG" and min(picture.size) > 2 * 128  # two pictures in a row, enlarged


def test_evaluate_writes_its_report(run, tmp_path):
  done = command("evaluate", f"--workdir={run[0]}", "--prompts=4", f"--out={tmp_path}", "--token_guidance=1.5")
  report = json.loads((tmp_path / "report.json").read_text())
  assert report["binding"]["prompts"] == 4 and 0 <= report["binding"]["objects"] <= 1
  assert {"reconstruction", "seams", "seconds"} <= set(report)
  page = (tmp_path / "report.html").read_text()
  assert "<html" in page and "token_guidance 1.5" in page
  assert str(tmp_path / "report.html") in done.stdout and not done.stderr
