"""A run killed in each of its four stages and started again by the same command is the run that was never killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from omniimage.checkpoint import Checkpoints

STEPS = 40  # four stages of ten
CHECKPOINTS = (4, 8, 10, 12, 16, 20, 24, 28, 30, 32, 36, 40)  # after every fourth step and at the end of a stage
DEATHS = (6, 18, 26, 34)  # in each stage once, between two checkpoints
STARTS = (None, 4, 16, 24, 32)  # the checkpoint that each process goes on from


def _train(workdir: Path, die_after: int | None = None, *changes: str) -> subprocess.CompletedProcess:
  environment = {name: value for name, value in os.environ.items() if name != "DIE_AFTER"}
  environment |= {"DIE_AFTER": str(die_after)} if die_after else {}
  command = [
    sys.executable,
    "-m",
    "launch.train",
    "--config=tests/training/mortal.py",
    f"--workdir={workdir}",
    *changes,
  ]
  return subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """The workdirs of a run that was never killed and of one killed four times, and the processes of the latter."""
  never, often = (tmp_path_factory.mktemp(name) for name in ("never", "often"))
  whole = _train(never)
  assert whole.returncode == 0, whole.stderr
  return never, often, [_train(often, die_after) for die_after in (*DEATHS, None)]


def _arrays(workdir: Path, step: int) -> dict[str, np.ndarray]:
  """Every array of a checkpoint, by its path."""
  checkpoints = Checkpoints(workdir / "checkpoints")
  return jax.device_get(checkpoints.restore(step, checkpoints.shapes(step)))


def _metrics(workdir: Path) -> list[dict]:
  lines = (workdir / "metrics" / "metrics.jsonl").read_text().splitlines()
  timed = ("images_per_second", "wall_seconds", "goodput/", "input_seconds")
  return [{k: v for k, v in json.loads(line).items() if not k.startswith(timed)} for line in lines]


def test_every_process_was_killed_between_two_checkpoints_and_the_next_went_on_from_the_last_of_them(runs):
  _, _, processes = runs
  assert [process.returncode for process in processes] == [-signal.SIGKILL] * 4 + [0], processes[-1].stderr
  for process, start in zip(processes, STARTS):
    assert (f"goes on from step {start} of {STEPS}" in process.stderr) == (start is not None)


@pytest.mark.parametrize("step", [10, 20, 30, 40])
def test_resume_after_kill_is_bitwise_identical(runs, step):
  """Parameters, averages, optimizer and counters, as each stage leaves them."""
  never, often, _ = runs
  expected, found = _arrays(never, step), _arrays(often, step)
  assert len(expected) > 50 and expected.keys() == found.keys()
  for path, array in expected.items():
    np.testing.assert_array_equal(array.view(f"u{array.itemsize}"), found[path].view(f"u{array.itemsize}"), str(path))


def test_every_step_is_in_the_metrics_once_with_the_same_losses(runs):
  never, often, _ = runs
  assert [row["step"] for row in _metrics(often)] == list(range(1, STEPS + 1))
  assert _metrics(often) == _metrics(never)


def test_what_a_kill_makes_a_run_do_again_is_in_its_accounts_as_lost(runs):
  for workdir, lost in zip(runs[:2], (False, True)):
    last = json.loads((workdir / "metrics" / "metrics.jsonl").read_text().splitlines()[-1])
    shares = [value for name, value in last.items() if name.startswith("goodput/")]
    assert sum(shares) == pytest.approx(1) and (last["goodput/lost"] > 0) == lost and last["goodput/steps"] > 0


def test_a_finished_run_does_nothing_again(runs):
  never, _, _ = runs
  files = lambda: {f: f.stat().st_mtime_ns for f in (never / "checkpoints").rglob("*") if f.is_file()}  # noqa: E731
  before, metrics = files(), _metrics(never)
  assert tuple(Checkpoints(never / "checkpoints").steps()) == CHECKPOINTS
  again = _train(never)
  assert again.returncode == 0 and f"goes on from step {STEPS} of {STEPS}" in again.stderr
  assert files() == before and _metrics(never) == metrics


def test_a_finished_run_goes_on_with_the_stages_that_a_longer_schedule_adds(runs, tmp_path):
  for schedule, start in (("('tokenizer',)", None), ("('tokenizer', 'prior')", 10)):
    done = _train(tmp_path, None, f"--config.schedule={schedule}")
    assert done.returncode == 0, done.stderr
    assert (f"goes on from step {start} of 20" in done.stderr) == (start is not None)
  expected, found = _arrays(runs[0], 20), _arrays(tmp_path, 20)
  assert found and not any("ema" in str(path) for path in found)
  for path, array in found.items():
    np.testing.assert_array_equal(array, expected[path], str(path))
  refused = _train(tmp_path, None, "--config.schedule=('tokenizer', 'prior')", "--config.stages.prior.steps=15")
  assert refused.returncode == 2 and "the run had ended at step 20" in refused.stderr
