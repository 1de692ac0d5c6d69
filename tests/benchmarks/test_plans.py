"""The table of plans: what it holds, that it goes on where it was stopped, and that a dead compiler is a row of it."""

import subprocess

import pytest

from configs import omni
from tests.benchmarks.without_flags import load

plans = load("plans")

RECORD = """{"mesh": {"data": 16, "fsdp": 16, "tensor": 1, "sequence": 1}, "rows_per_chip": 4.0,
"images_per_chip": 16.0, "hbm_bytes_per_chip": {"total": 4e9}, "fits": true,
"collective_bytes_per_chip": {"all-gather": 2.69e9, "all-reduce": 0}, "synchronous_share": 0.08,
"step_seconds": {"low": 0.16, "likely": 0.18, "high": 0.24}, "mfu": {"low": 0.48, "likely": 0.629, "high": 0.72},
"compile_seconds": 85.2, "versions": {"jax": "1.2.3"}}"""


def test_every_stage_of_every_variant_is_planned_and_no_two_plans_share_a_name():
  planned = {(plan.config, plan.stage) for plan in plans.TABLE}
  assert planned == {(v, stage) for v in omni.VARIANTS for stage in _schedule(v)} | {("1b", "sample")}
  assert len({plan.name for plan in plans.TABLE}) == len(plans.TABLE)


def _schedule(variant: str) -> tuple[str, ...]:
  return omni.get_config(variant).schedule


@pytest.fixture
def started(monkeypatch):
  """The commands that were run; each ends as `ending` says."""
  commands = []

  def run(command, **_):
    commands.append(command)
    if run.ending == 0:
      out = next(argument for argument in command if argument.startswith("--out=")).removeprefix("--out=")
      with open(out, "w") as file:
        file.write(RECORD)
    return subprocess.CompletedProcess(command, run.ending, "", "warnings\nerror: what was wrong")

  run.ending, run.commands = 0, commands
  monkeypatch.setattr(plans.subprocess, "run", run)
  return run


def test_a_plan_that_was_made_is_not_made_again(tmp_path, started):
  for _ in range(2):
    record = plans.record_of(plans.TABLE[1], tmp_path)
  (command,) = started.commands
  assert "--config=configs/omni.py:1b" in command and "--stage=prior" in command
  assert plans.row(plans.TABLE[1], record) == (
    "| 1b prior | v5e:16x16 | data 16 × fsdp 16 | 4 / 16 | 4.0 | 2.7 (all-gather 2.69) | 8% | 0.160 / 0.180 / 0.240 "
    "| 48% / **62.9%** / 72% | 85 |"
  )
  assert "1b prior" in plans.table(tmp_path, "abc") and "Commit abc; jax 1.2.3" in plans.table(tmp_path, "abc")


@pytest.mark.parametrize(("ending", "why"), [(-4, "signal 4"), (2, "error: what was wrong")])
def test_where_the_compiler_dies_or_refuses_the_table_says_so_and_goes_on(tmp_path, started, ending, why):
  started.ending = ending
  plans.record_of(plans.TABLE[1], tmp_path)
  started.ending = 0
  plans.record_of(plans.TABLE[2], tmp_path)
  text = plans.table(tmp_path, "abc")
  assert f"| 1b prior | v5e:16x16 | {why} |" in text and "| 1b decoder | v5e:16x16 | data 16" in text
