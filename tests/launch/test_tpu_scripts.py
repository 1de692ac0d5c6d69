"""The scripts of launch/tpu print the right commands and refuse wrong arguments; docs/tpu.md can be typed as it is."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TPU = ROOT / "launch" / "tpu"
SCRIPTS = sorted(path for path in TPU.rglob("*.sh"))
COMMANDS = [path for path in SCRIPTS if path.parent == TPU and path.name != "common.sh"]
SLICE = ("--name=omni", "--project=my-project", "--zone=us-west4-a")
CLUSTER = ("--cluster=pod", "--project=my-project", "--zone=us-west4-a")
RUN = ("--config=configs/omni.py:1b", "--workdir=gs://my-bucket/runs/omni")
MULTISLICE = (*CLUSTER, "--topology=v5e:16x16", "--slices=2", "--workload=omni", "--image=registry/train:1")

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")


def call(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    ["bash", str(TPU / script), *arguments],
    capture_output=True,
    text=True,
    stdin=subprocess.DEVNULL,
    env={**os.environ, **environment},
    timeout=30,
  )


def dry(script: str, *arguments: str) -> list[list[str]]:
  """The commands that a script would run, as words, without any of the programs being there."""
  done = call(script, *arguments, "--dry_run")
  assert done.returncode == 0 and not done.stderr, done.stderr
  return [shlex.split(line) for line in done.stdout.splitlines()]


def remote(command: list[str]) -> str:
  """What a `gcloud … ssh` runs on the hosts."""
  assert command[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "omni"]
  assert {"--project=my-project", "--zone=us-west4-a"} < set(command)
  return command[-1].removeprefix("--command=")


@pytest.mark.parametrize(
  ("topology", "accelerator", "runtime"),
  [
    ("v5e:2x4", "v5litepod-8", "v2-alpha-tpuv5-lite"),
    ("v5e:16x16", "v5litepod-256", "v2-alpha-tpuv5-lite"),
    ("v6e:16x16", "v6e-256", "v2-alpha-tpuv6e"),
    ("v5p:4x4x4", "v5p-128", "v2-alpha-tpuv5"),
    ("v5p:8x8x8", "v5p-1024", "v2-alpha-tpuv5"),
    ("v5p:2x2x1", "v5p-8", "v2-alpha-tpuv5"),
    ("v4:4x4x8", "v4-256", "tpu-ubuntu2204-base"),
  ],
)
def test_a_topology_becomes_an_accelerator_type(topology, accelerator, runtime):
  (command,) = dry("queue.sh", *SLICE, f"--topology={topology}")
  assert command[:6] == ["gcloud", "compute", "tpus", "queued-resources", "create", "omni"]
  assert set(command[6:]) == {
    "--node-id=omni",
    "--zone=us-west4-a",
    "--project=my-project",
    f"--accelerator-type={accelerator}",
    f"--runtime-version={runtime}",
  }


def test_queue_passes_its_options_on():
  (command,) = dry(
    "queue.sh", *SLICE, "--topology", "v5e:4x4", "--spot", "--service-account=a@b.c", "--runtime_version=r"
  )
  assert {"--spot", "--service-account=a@b.c", "--runtime-version=r"} < set(command)
  assert "--reserved" in dry("queue.sh", *SLICE, "--topology=v5e:4x4", "--reserved")[0]


def test_setup_copies_a_commit_of_this_checkout(tmp_path):
  git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
  subprocess.run([*git, "init", "--quiet"], check=True)
  subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message=m"], check=True)
  archive, copy, unpack, setup = dry("setup.sh", *SLICE, f"--repository={tmp_path}", "--bucket=gs://my-bucket")
  assert archive[:4] == ["git", "-C", str(tmp_path), "archive"] and archive[-1] == "HEAD"
  assert copy[3:5] == ["tpu-vm", "scp"] and copy[6] == "omni:omniimage.tar.gz" and "--worker=all" in copy
  assert "tar -xzf omniimage.tar.gz" in remote(unpack) and "--worker=all" in unpack
  assert remote(setup) == "bash omniimage/launch/tpu/worker/setup.sh my-bucket"
  refused("setup.sh", *SLICE, f"--repository={tmp_path}", "--commit=nope", says="--commit=nope is not in")


def test_setup_clones_a_url():
  clone, setup = dry("setup.sh", *SLICE, "--repository=https://example.com/omni.git", "--commit=v1")
  assert "git clone --quiet https://example.com/omni.git omniimage" in remote(clone)
  assert "fetch --quiet https://example.com/omni.git v1" in remote(clone)
  assert remote(setup) == "bash omniimage/launch/tpu/worker/setup.sh"


def test_train_starts_all_hosts():
  (command,) = dry("train.sh", *SLICE, *RUN, "--config.decoder.chunk_rows=(2, 'x')")
  assert "--worker=all" in command
  assert shlex.split(remote(command)) == [
    "bash",
    "omniimage/launch/tpu/worker/train.sh",
    *RUN,
    "--config.decoder.chunk_rows=(2, 'x')",
  ]


def test_stop_kills_the_training_and_not_itself():
  (command,) = dry("train.sh", *SLICE, "--stop")
  pattern = shlex.split(remote(command))[4]
  assert re.search(pattern, "/home/me/omniimage-venv/bin/python -m launch.train --config=c")
  assert not re.search(pattern, remote(command))


def test_logs_follow_the_first_host():
  (command,) = dry("logs.sh", *SLICE)
  assert "--worker=0" in command and remote(command).startswith("tail ")
  assert "--worker=3" in dry("logs.sh", *SLICE, "--worker=3")[0]


def test_delete_takes_the_hosts_too():
  (command,) = dry("delete.sh", *SLICE)
  assert command[3:6] == ["queued-resources", "delete", "omni"] and "--force" in command and "--quiet" not in command
  assert "--quiet" in dry("delete.sh", *SLICE, "--yes")[0]


def test_a_cluster_of_slices_has_the_bucket():
  create, attach = dry(
    "multislice.sh", "cluster", *CLUSTER, "--topology=v5p:8x8x8", "--slices=2", "--bucket=b", "--spot"
  )
  assert create[:3] == ["xpk", "cluster", "create"]
  assert {*CLUSTER, "--tpu-type=v5p-8x8x8", "--num-slices=2", "--spot", "--enable-gcsfuse-csi-driver"} < set(create)
  assert attach[:3] == ["xpk", "storage", "attach"]
  assert {"--type=gcsfuse", "--bucket=b", "--mount-point=/gcs/b", "--readonly=false"} < set(attach)


def test_slices_train_in_the_image():
  (command,) = dry("multislice.sh", "train", *MULTISLICE, *RUN, "--max_restarts=3", "--config.seed=1")
  assert command[:3] == ["xpk", "workload", "create"]
  assert {*CLUSTER, "--workload=omni", "--tpu-type=v5litepod-256", "--num-slices=2"} < set(command)
  assert {"--docker-image=registry/train:1", "--max-restarts=3", "--storage=omniimage-workdir"} < set(command)
  assert shlex.split(command[-1].removeprefix("--command=")) == [
    *("python", "-m", "launch.train", "--config=configs/omni.py:1b"),
    *("--workdir=/gcs/my-bucket/runs/omni", "--config.seed=1"),
  ]


def test_the_image_has_what_it_copies():
  build, push = dry("multislice.sh", "image", "--image=registry/train:1")
  assert build[:2] == ["docker", "build"] and push == ["docker", "push", "registry/train:1"]
  dockerfile = Path(next(word for word in build if word.startswith("--file=")).removeprefix("--file="))
  for copied in re.findall(r"^COPY (.*) \S+$", dockerfile.read_text(), re.MULTILINE):
    assert all((Path(build[-1]) / name).exists() for name in copied.split())


def refused(script: str, *arguments: str, says: str):
  done = call(script, *arguments, "--dry_run")
  assert done.returncode == 2 and not done.stdout
  assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and says in done.stderr, done.stderr


@pytest.mark.parametrize(
  ("line", "says"),
  [
    ("queue.sh", "--name is missing; give it, as in --name="),
    ("queue.sh --name=", "--name is empty"),
    ("queue.sh omni", "'omni' is not a flag"),
    ("queue.sh --nmae=omni", "--nmae is not a flag of queue.sh; it takes --name"),
    ("queue.sh --spot=yes", "--spot takes no value"),
    ("queue.sh {slice} --topology=v5e:16x16 --spot --reserved", "exclude each other"),
    ("queue.sh {slice} --topology=v5e-256", "is not a chip and a shape"),
    ("queue.sh {slice} --topology=v7:2x2", "is not a chip and a shape"),
    ("queue.sh {slice} --topology=v5e:3x3", "v5e has no slice of shape 3x3"),
    ("queue.sh {slice} --topology=v5p:8x8", "has three sizes, not 2"),
    ("queue.sh {slice} --topology=v5p:6x8x8", "multiples of 4"),
    ("setup.sh {slice} --repository=/nowhere", "neither a URL nor a git checkout"),
    ("setup.sh {slice} --bucket=gs://b/folder", "must be a bucket alone"),
    ("train.sh {slice} --config=c", "--workdir is missing"),
    ("train.sh {slice} --config=c --workdir=runs/omni", "a folder of its own on every host"),
    ("train.sh {slice} --config=c --workdir=gs://bucket", "give gs://BUCKET/FOLDER"),
    ("logs.sh {slice} --worker=all", "must be a whole number"),
    ("delete.sh {slice} --config.seed=1", "takes no config"),
    ("multislice.sh", "is not an action; give image, cluster, train"),
    ("multislice.sh start", "'start' is not an action"),
    ("multislice.sh cluster {cluster} --topology=v5e:4x4 --bucket=b --slices=0", "at least 1"),
    ("multislice.sh train {multislice} --config=c --workdir=/here", "is not in a bucket"),
  ],
)
def test_wrong_arguments_are_one_line(line, says):
  filled = line.format(slice=shlex.join(SLICE), cluster=shlex.join(CLUSTER), multislice=shlex.join(MULTISLICE))
  refused(*shlex.split(filled), says=says)


@pytest.mark.parametrize("script", COMMANDS, ids=lambda path: path.name)
def test_help_names_every_flag(script):
  done = call(script.name, "--help")
  assert done.returncode == 0 and not done.stderr
  taken = re.search(r'^parse_flags "([^"]*)"[\s\\]*"([^"]*)"', script.read_text(), re.MULTILINE)
  missing = [name for name in " ".join(taken.groups()).split() if f"--{name}" not in done.stdout]
  assert not missing and "--dry_run" in done.stdout


def test_a_missing_program_is_one_line(tmp_path):
  for program in ("bash", "dirname", "sed"):
    (tmp_path / program).symlink_to(shutil.which(program))
  done = call("delete.sh", *SLICE, PATH=str(tmp_path))
  assert done.returncode == 2 and done.stderr.count("\n") == 1 and "gcloud is not installed" in done.stderr


def test_shellcheck():
  if not shutil.which("shellcheck"):
    pytest.skip("shellcheck is not installed")
  subprocess.run(["shellcheck", "--external-sources", *map(str, SCRIPTS)], check=True)


@pytest.fixture
def host(tmp_path):
  """A home folder like a host's after setup.sh, whose python and gcsfuse only note what they are called with."""
  if not (shutil.which("flock") and shutil.which("setsid")):
    pytest.skip("this is not Linux")
  programs = {
    "omniimage-venv/bin/python": 'echo "$@" >> "$HOME/trained"; sleep "${TRAINS:-0}"; exit "${CODE:-0}"',
    "bin/gcsfuse": 'echo "$@" >> "$HOME/mounted"',
    "bin/mountpoint": 'test -e "$HOME/mounted"',
    "bin/fusermount": "exit 1",
  }
  for name, script in programs.items():
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
    (tmp_path / name).chmod(0o755)
  environment = {
    "HOME": str(tmp_path),
    "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
    "OMNIIMAGE_WATCH_SECONDS": "0.3",
  }
  return tmp_path, environment


def test_a_host_trains_once_at_a_time(host):
  home, environment = host
  done = call("worker/train.sh", *RUN, **environment, TRAINS="2")
  assert done.returncode == 0 and "training runs, " in done.stdout, done.stderr
  again = call("worker/train.sh", *RUN, **environment)
  assert again.returncode == 0 and "training runs already" in again.stdout
  assert (home / "mounted").read_text().endswith(f"my-bucket {home}/gcs/my-bucket\n")
  expected = f"-m launch.train --config=configs/omni.py:1b --workdir={home}/gcs/my-bucket/runs/omni\n"
  assert (home / "trained").read_text() == expected


def test_a_host_says_at_once_why_training_ended(host):
  done = call("worker/train.sh", "--config=c", "--workdir=/shared/omni", **host[1], CODE="2")
  assert done.returncode == 2 and "training ended with code 2" in done.stdout
  assert not (host[0] / "mounted").exists()


def blocks() -> list[list[str]]:
  """The lines of commands in docs/tpu.md, continued lines joined, block by block."""
  text = (ROOT / "docs" / "tpu.md").read_text()
  found = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
  return [block.replace("\\\n", " ").splitlines() for block in found]


def test_the_scripts_of_the_docs_take_these_flags():
  lines = [line for block in blocks() for line in block]
  exports = "; ".join(line for line in lines if line.startswith("export "))
  typed = [line for line in lines if line.startswith("launch/tpu/")]
  inline = re.findall(r"`(launch/tpu/\S+\.sh --[^`]*)`", (ROOT / "docs" / "tpu.md").read_text())
  assert {line.split()[0] for line in typed} == {f"launch/tpu/{path.name}" for path in COMMANDS} and inline
  for line in [*typed, *inline]:
    if "setup.sh" in line:  # what is tested need not be a checkout
      line += " --repository=https://example.com/omni.git"
    done = subprocess.run(
      ["bash", "-c", f"{exports}; {line} --dry_run"], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0 and done.stdout, f"{line}: {done.stderr}"


@pytest.mark.parametrize("line", [line for block in blocks() for line in block if line.startswith("python -m launch.")])
def test_the_commands_of_the_docs_take_these_flags(line):
  words = shlex.split(line)
  module = ROOT / "launch" / f"{words[2].removeprefix('launch.')}.py"
  assert module.is_file(), f"there is no {module.name}"
  text = module.read_text()
  shared = re.search(r"^from \. import (.*)", text, re.MULTILINE)
  text += "".join((ROOT / "launch" / f"{name}.py").read_text() for name in shared[1].split(", "))
  defined = set(re.findall(r'(?:DEFINE_\w+|path_flag|whole|real)\(\s*"(\w+)"', text))
  defined |= {"config"} if "config_file.define(" in text else set()
  assert {word.removeprefix("--").split("=")[0] for word in words[3:] if word.startswith("--")} <= defined
