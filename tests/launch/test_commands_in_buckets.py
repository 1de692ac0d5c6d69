"""Commands on a run in a bucket; `tests/benchmarks/test_fault_trials.py` trains there."""

import json

import pytest

from omniimage.paths import anywhere
from tests import small
from tests.launch.in_process import call
from tests.launch.random_run import random_run

RUN = "gs://bucket/runs/random"


@pytest.fixture
def run(bucket):
  random_run(anywhere(RUN), **small.SHALLOW, **{"sampling.diffusion_steps": 1})
  return bucket


def test_sample_draws_with_a_run_in_a_bucket_what_it_draws_with_the_same_run_on_disk(run, tmp_path, capsys):
  random_run(tmp_path / "run", **small.SHALLOW, **{"sampling.diffusion_steps": 1})
  for workdir, out in ((RUN, "there.png"), (tmp_path / "run", "here.png")):
    call("sample", f"--workdir={workdir}", "--prompt=a large red star in the top left", f"--out={tmp_path / out}")
  assert (tmp_path / "there.png").read_bytes() == (tmp_path / "here.png").read_bytes()
  assert "1 drawn at step 1 of the run" in capsys.readouterr().out


@pytest.mark.parametrize("out, where", [((), "runs/random/"), (("--out=gs://bucket/reports/a",), "reports/a/")])
def test_evaluate_writes_its_report_into_a_bucket(run, capsys, out, where):
  call("evaluate", f"--workdir={RUN}", "--suite=reconstruction", "--prompts=4", *out)
  assert json.loads(run.objects[f"{where}report.json"])["reconstruction"]["step"] == 1
  assert b"<html" in run.objects[f"{where}report.html"]
  assert f"report: gs://bucket/{where}report.html" in capsys.readouterr().out


def test_runs_in_buckets_are_compared(run, bucket, tmp_path, capsys):
  for name in list(bucket.objects):
    bucket.objects[name.replace("random", "other")] = bucket.objects[name]
  call("evaluate", f"--compare={RUN},gs://bucket/runs/other", f"--out={tmp_path}", "--prompts=1")
  assert (tmp_path / "compare.html").stat().st_size and not capsys.readouterr().err


def test_what_is_no_run_in_a_bucket_is_told_in_one_line(bucket, capsys):
  with pytest.raises(SystemExit):
    call("sample", "--workdir=gs://bucket/none", "--prompt=a star", "--out=/tmp/star.png")
  assert capsys.readouterr().err.startswith("error: gs://bucket/none is not a run: it has no config.json; train one")
