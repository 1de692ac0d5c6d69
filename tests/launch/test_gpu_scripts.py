"""The job script for Slurm starts launch.train on every node, and queues itself again where that helps."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "gpu" / "slurm.sh"
TRAIN = ("--config=configs/omni.py:300m", "--workdir=/shared/a run", "--config.mesh.fsdp=8")

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")


@pytest.fixture
def job(tmp_path):
  """Runs the script as a job of two nodes whose training ends with a code; what it ran, and its own exit code."""
  programs, said = tmp_path / "programs", tmp_path / "said"
  programs.mkdir()
  fakes = {  # srun runs the second node's task
    "srun": 'SLURM_PROCID=1 exec "${@:2}"',
    "scontrol": 'case $1 in show) printf "a\\nb\\n" ;; *) echo "scontrol $*" >>"$SAID" ;; esac',
    "python": 'env | grep -E "^(JAX|XLA)_" | sort >>"$SAID"; printf "%s\\n" "$@" >>"$SAID"; exit "$CODE"',
  }
  for name, body in fakes.items():
    (programs / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
    (programs / name).chmod(0o755)

  def run(code: int, **environment: str) -> tuple[list[str], int]:
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("JAX", "XLA"))}
    slurm = {"SLURM_JOB_ID": "40007", "SLURM_JOB_NODELIST": "a,b", "SLURM_JOB_NUM_NODES": "2"}
    own = {
      "PATH": f"{programs}:{plain['PATH']}",
      "SAID": str(said),
      "CODE": str(code),
      "SLURM_SUBMIT_DIR": str(tmp_path),
    }
    done = subprocess.run(["bash", SCRIPT, *TRAIN], env={**plain, **slurm, **own, **environment}, timeout=30)
    return said.read_text().splitlines(), done.returncode

  return run


def test_every_node_trains_as_one_process_of_the_run(job):
  said, code = job(0)
  assert code == 0 and said == [
    "JAX_COORDINATOR_ADDRESS=a:20007",
    "JAX_NUM_PROCESSES=2",
    "JAX_PLATFORMS=cuda",
    "JAX_PROCESS_ID=1",
    "XLA_PYTHON_CLIENT_MEM_FRACTION=0.9",
    "-m",
    "launch.train",
    *TRAIN,
  ]


def test_a_share_of_the_memory_that_was_chosen_stays(job):
  assert "XLA_PYTHON_CLIENT_MEM_FRACTION=0.5" in job(0, XLA_PYTHON_CLIENT_MEM_FRACTION="0.5")[0]


@pytest.mark.parametrize("code", [75, 2])
def test_the_job_queues_itself_again_only_where_running_again_helps(job, code):
  said, returned = job(code)
  assert returned == code and (said[-1] == "scontrol requeue 40007") == (code == 75)


def test_shellcheck_finds_nothing():
  if not shutil.which("shellcheck"):
    pytest.skip("shellcheck is not installed")
  subprocess.run(["shellcheck", "-x", SCRIPT], check=True)


def test_outside_of_slurm_it_says_how_to_start_it():
  environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
  done = subprocess.run(["bash", SCRIPT], env=environment, capture_output=True, text=True)
  assert done.returncode != 0 and "start it with sbatch" in done.stderr
