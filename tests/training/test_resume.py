"""A run killed in every stage ends as if it had never been."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from omniimage.checkpoint import Checkpoints
from tests.launch.test_commands import MINUSCULE, QUICK

STEPS = 8  # a stage
SETTINGS = [
  "--config=configs/scenes.py:tiny",
  *(flag for flag in MINUSCULE if ".steps=" not in flag),
  *(f"--config.stages.{stage}.steps={STEPS}" for stage in ("tokenizer", "prior", "decoder", "joint")),
  "--config.run.checkpoint_every=3",
  "--config.run.log_every=1",
]
SAVED = [3, 12, 18, 27]  # the last checkpoint before each death
DEATHS = [5, 13, 21, 29]  # in the middle of each stage, and not where it saves
# The command, which kills itself the moment it has logged a given step and the save before it has reached the disk.
DOOMED = """
import os, signal, time
from omniimage.checkpoint import Checkpoints
from omniimage.training.metrics import MetricsWriter
write = MetricsWriter.write
def write_and_die(self, step, *rest):
  write(self, step, *rest)
  if step == int(os.environ["DIE_AT"]):
    while Checkpoints(os.environ["CHECKPOINTS"]).latest() != int(os.environ["SAVED"]):
      time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)
MetricsWriter.write = write_and_die
from launch import cli, train
cli.run(train.main)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """The workdirs of a run never killed and of one killed once in each stage, and where the latter restarted."""
  folder = tmp_path_factory.mktemp("runs")
  whole, killed = folder / "whole", folder / "killed"
  environment = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": QUICK,
    "JAX_COMPILATION_CACHE_DIR": str(folder / "c"),
  }

  def train(workdir, *command, **more):
    argv = [sys.executable, *command, *SETTINGS, f"--workdir={workdir}"]
    return subprocess.run(argv, env={**environment, **more}, capture_output=True, text=True)

  done = train(whole, "-m", "launch.train")
  assert done.returncode == 0, done.stderr
  restarts = []
  for death, saved in zip(DEATHS, SAVED):
    died = train(
      killed, "-c", DOOMED, DIE_AT=str(death), SAVED=str(saved), CHECKPOINTS=str(killed / "checkpoints"),
      # A killed process may leave half a program in the compile cache: it reads it, but does not write.
      JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="1e9",
    )  # fmt: skip
    assert died.returncode == -9, died.stderr
    restarts.append(Checkpoints(killed / "checkpoints").latest())
  done = train(killed, "-m", "launch.train")
  assert done.returncode == 0, done.stderr
  return whole, killed, restarts


def _last_state(workdir) -> dict[str, np.ndarray]:
  checkpoints = Checkpoints(workdir / "checkpoints")
  step = checkpoints.latest()
  assert step == 4 * STEPS
  return jax.tree.map(np.asarray, checkpoints.restore(step, checkpoints.shapes(step)))


def test_resume_after_kill_in_every_stage_is_bitwise_identical(runs):
  whole, killed, restarts = runs
  assert restarts == SAVED
  expected, found = _last_state(whole), _last_state(killed)
  assert expected.keys() == found.keys() and any(path.startswith("params/decoder/") for path in found)
  different = [path for path in expected if not np.array_equal(expected[path], found[path])]
  assert not different


def test_metrics_hold_every_step_once_and_alike(runs):
  lines = [
    [json.loads(line) for line in (run / "metrics" / "metrics.jsonl").read_text().splitlines()] for run in runs[:2]
  ]
  for run in lines:
    assert [line["step"] for line in run] == list(range(1, 4 * STEPS + 1))
  assert [line["loss"] for line in lines[0]] == [line["loss"] for line in lines[1]]
