"""A run killed in each of its four stages and started again by the same command is the run that was never killed."""

import functools
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest

from omniimage.checkpoint import Checkpoints
from tests.training.mortal import EVERY

STEPS = 16  # four stages of four
DEATHS = (3, 7, 11, 15)  # the third update of each stage, between the checkpoints of the second and of the fourth
STARTS = (None, 2, 6, 10, 14)  # the checkpoint that each process goes on from


def _train(workdir: Path, die_after: int | None = None) -> subprocess.CompletedProcess:
  environment = {name: value for name, value in os.environ.items() if name != "DIE_AFTER"}
  environment |= {"DIE_AFTER": str(die_after)} if die_after else {}
  environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # one device, quick to compile
  environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
  command = [sys.executable, "-m", "launch.train", "--config=tests/training/mortal.py", f"--workdir={workdir}"]
  return subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True)


def _killed_four_times(workdir: Path) -> list[subprocess.CompletedProcess]:
  return [_train(workdir, die_after) for die_after in (*DEATHS, None)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """The workdirs of a run that was never killed and of one killed four times, and the processes of the latter."""
  never, often = (tmp_path_factory.mktemp(name) for name in ("never", "often"))
  with ThreadPoolExecutor() as pool:
    whole, processes = pool.submit(_train, never), pool.submit(_killed_four_times, often)
    assert whole.result().returncode == 0, whole.result().stderr
    return never, often, processes.result()


def _arrays(workdir: Path, step: int) -> dict[str, np.ndarray]:
  """Every array of a checkpoint, by its path."""
  checkpoints = Checkpoints(workdir / "checkpoints")
  shapes = checkpoints.shapes(step)
  nested = {}
  for path, shape in shapes.items():
    *groups, name = path.split("/")
    functools.reduce(lambda tree, group: tree.setdefault(group, {}), groups, nested)[name] = shape
  return dict(jax.tree.leaves_with_path(jax.device_get(checkpoints.restore(step, nested))))


def _metrics(workdir: Path) -> list[dict]:
  lines = (workdir / "metrics" / "metrics.jsonl").read_text().splitlines()
  return [{k: v for k, v in json.loads(line).items() if k != "images_per_second"} for line in lines]


def test_every_process_was_killed_between_two_checkpoints_and_the_next_went_on_from_the_last_of_them(runs):
  _, _, processes = runs
  assert [process.returncode for process in processes] == [-signal.SIGKILL] * 4 + [0], processes[-1].stderr
  for process, start in zip(processes, STARTS):
    assert (f"goes on from step {start} of {STEPS}" in process.stderr) == (start is not None)


@pytest.mark.parametrize("step", range(EVERY, STEPS + 1, EVERY))
def test_resume_after_kill_is_bitwise_identical(runs, step):
  """Parameters, averages, optimizer and counters, at every checkpoint."""
  never, often, _ = runs
  expected, found = _arrays(never, step), _arrays(often, step)
  assert len(expected) > 50 and expected.keys() == found.keys()
  for path, array in expected.items():
    np.testing.assert_array_equal(array.view(f"u{array.itemsize}"), found[path].view(f"u{array.itemsize}"), str(path))


def test_every_step_is_in_the_metrics_once_with_the_same_losses(runs):
  never, often, _ = runs
  assert [row["step"] for row in _metrics(often)] == list(range(1, STEPS + 1))
  assert _metrics(often) == _metrics(never)


def test_a_finished_run_does_nothing_again(runs):
  never, _, _ = runs
  files = lambda: {f: f.stat().st_mtime_ns for f in (never / "checkpoints").rglob("*") if f.is_file()}  # noqa: E731
  before, metrics = files(), _metrics(never)
  again = _train(never)
  assert again.returncode == 0 and f"goes on from step {STEPS} of {STEPS}" in again.stderr
  assert files() == before and _metrics(never) == metrics
