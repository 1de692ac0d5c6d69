"""The plan command as a user types it."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

TINY = "--config=configs/scenes.py:tiny"
needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None, reason="needs the TPU compiler: pip install 'omniimage[tpu]'"
)


def command(*args) -> subprocess.CompletedProcess:
  """In a process of its own: this one's devices are CPUs."""
  environment = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "JAX_PLATFORMS")}
  argv = [sys.executable, "-m", "launch.plan", *map(str, args)]
  return subprocess.run(argv, capture_output=True, text=True, env=environment)


@needs_libtpu
def test_a_small_config_is_planned_for_a_host_of_tpus(tmp_path):
  out, hlo = tmp_path / "plans" / "plan.json", tmp_path / "step.hlo"
  shallow = ["--config.prior.depth=1", "--config.decoder.depth=1", "--config.optimizer.muon_rms=0.0"]
  done = command(TINY, "--topology=v5e:2x4", "--stage=prior", *shallow, f"--out={out}", f"--hlo={hlo}")
  assert done.returncode == 0, done.stderr
  assert not done.stderr
  plan = json.loads(out.read_text())
  assert (plan["topology"], plan["chips"], plan["stage"], plan["mesh"]["data"]) == ("v5e:2x4", 8, "prior", 8)
  assert plan["fits"] and 0 < plan["hbm_bytes_per_chip"]["total"] < plan["hbm_capacity"]
  assert plan["flops_per_chip"] >= plan["model_flops_per_chip"] > 0
  # Parameters lie whole on every chip: the gradients' sum receives at least 7/8 of them twice, in float32.
  assert plan["collective_bytes_per_chip"]["all-reduce"] > 100_000
  assert 0 < plan["step_seconds"]["low"] <= plan["step_seconds"]["likely"] <= plan["step_seconds"]["high"]
  assert plan["mfu"]["low"] <= plan["mfu"]["likely"] <= plan["mfu"]["high"]
  assert any(operation["path"].startswith("prior/layers") for operation in plan["operations"])
  assert "prior on v5e:2x4" in done.stdout and "prior/layers" in done.stdout
  text = hlo.read_text()
  assert text.startswith("HloModule") and "{...}" not in text  # masks' tables included


@needs_libtpu
def test_a_shape_that_the_compiler_refuses_is_one_line(tmp_path):
  done = command(TINY, "--topology=v5e:3x5", f"--out={tmp_path / 'plan.json'}")
  assert done.returncode == 2 and done.stderr.startswith("error: topology='v5e:3x5'"), done.stderr
  assert len(done.stderr.splitlines()) == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    ([TINY, "--topology=v5e:2x4"], "--out=plan.json"),
    ([TINY, "--topology=v9:2x4", "--out=plan.json"], "no chip 'v9'"),
    ([TINY, "--topology=v5e:2x4", "--out=plan.json", "--config.prior.depht=1"], "did you mean depth"),
    ([TINY, "v5e:2x4", "--out=plan.json"], "'v5e:2x4' is not a flag"),
    ([TINY, "--topology=v5e:2x4", "--out=tests"], "tests cannot be written"),
  ],
)
def test_wrong_flags_are_one_line(flags, words):
  done = command(*flags)
  assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
