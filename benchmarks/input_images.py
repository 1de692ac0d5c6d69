"""What a prior understands of images that it reads as codes, as features of the tokenizer's encoder, or as both.

  python -m benchmarks.input_images --out=runs/input_images
  python -m benchmarks.input_images --small --out=/tmp/input_images      # the same at a toy's size: does it run?

The tokenizer is trained once; each prior (`prior.input_images`) goes on from a copy of that run, with the same seeds,
batches and number of steps. No painter is trained: edits are graded on the tokenizer's rendering of the sampled codes.
Resumable: what is there is not done again. Prints a table.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from absl import app, flags

from omniimage.settings import INPUT_IMAGES

OUT = flags.DEFINE_string("out", "runs/input_images", "folder of the runs")
CONFIG = flags.DEFINE_string("config", "configs/conversation.py", "config whose source has the tasks")
READ = flags.DEFINE_list("read", list(INPUT_IMAGES), "values of prior.input_images to compare")
STEPS = flags.DEFINE_integer("steps", None, "of the prior; those of the config where it is not given", lower_bound=1)
PROMPTS = flags.DEFINE_integer("prompts", 256, "held-out examples of each task", lower_bound=1)
SMALL = flags.DEFINE_boolean(
  "small", False, "a tiny model, a few steps and a few examples, of captions and edits alone"
)

SUITES = ("caption", "questions", "edits")
SMALL_CONFIG, SMALL_PROMPTS = "configs/scenes.py:tiny", 4
SMALL_CHANGES = {
  "data.source.tasks": ("caption", "questions", "edit"),
  "data.sequence_length": 160,
  "stages.tokenizer.steps": 20,
  "stages.prior.steps": 20,
  "stages.prior.weights.text": 1.0,
}
CHANGES = {"run.sample_every": 0, "sampling.diffusion_steps": 1}  # nobody looks at what is painted
COLUMNS = {  # of a report: share of what
  "objects told": ("caption", "objects"),
  "captions right": ("caption", "captions"),
  "answers right": ("questions", "right"),
  "edits exactly so": ("edits", "rendering", "exact"),
  "change made": ("edits", "rendering", "done"),
  "rest kept": ("edits", "rendering", "kept"),
}


def main(_):
  out, first = Path(OUT.value), Path(OUT.value) / "tokenizer"
  train(first, {"schedule": ("tokenizer",)})
  rows = {}
  for read in READ.value:
    workdir = out / read
    if not workdir.exists():
      copied = workdir.with_suffix(".copying")
      shutil.rmtree(copied, ignore_errors=True)
      shutil.copytree(first, copied).rename(workdir)
    train(workdir, {"schedule": ("tokenizer", "prior"), "prior.input_images": read})
    rows[read] = evaluate(workdir), last_losses(workdir)
  print(table(rows))


def train(workdir: Path, changes: Mapping[str, object]):
  config = SMALL_CONFIG if SMALL.value else CONFIG.value
  steps = {"stages.prior.steps": STEPS.value} if STEPS.value else {}
  changes = {**CHANGES, **steps, **(SMALL_CHANGES if SMALL.value else {}), **changes}
  values = [f"--config.{key}={value}" for key, value in changes.items()]
  run("launch.train", f"--config={config}", f"--workdir={workdir}", *values)


def evaluate(workdir: Path) -> dict:
  report, prompts = workdir / "report.json", SMALL_PROMPTS if SMALL.value else PROMPTS.value
  for suite in SUITES:
    if not report.exists() or suite not in json.loads(report.read_text()):
      run("launch.evaluate", f"--workdir={workdir}", f"--suite={suite}", f"--prompts={prompts}")
  return json.loads(report.read_text())


def run(module: str, *args: str):
  subprocess.run([sys.executable, "-m", module, *args], check=True)


def last_losses(workdir: Path) -> dict[str, float]:
  """The prior's, as last logged, by term."""
  lines = (workdir / "metrics" / "metrics.jsonl").read_text().splitlines()
  return json.loads(lines[-1])


def table(rows: Mapping[str, tuple[Mapping, Mapping]]) -> str:
  """A line for each way to read: shares of a report in percent, the prior's last losses, and its stage's minutes."""
  header = ["read as", *(f"{name}, %" for name in COLUMNS), "nats a text token", "nats a code", "minutes"]
  lines = [f"| {' | '.join(header)} |", "| --- " * len(header) + "|"]
  for read, (report, losses) in rows.items():
    shares = [percent(report, path) for path in COLUMNS.values()]
    terms = [f"{losses[name]:.3f}" for name in ("text", "image")]
    minutes = f"{report['seconds']['prior'] / 60:.1f}"
    lines.append(f"| {' | '.join([read, *shares, *terms, minutes])} |")
  return "\n".join(lines)


def percent(report: Mapping, path: tuple[str, ...]) -> str:
  """A figure of a report; a dash where it has none, as of renderings that are too small to be graded."""
  for key in path:
    if key not in report:
      return "–"
    report = report[key]
  return f"{100 * report:.1f}"


if __name__ == "__main__":
  app.run(main)
