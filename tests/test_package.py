"""What lands in somebody's site-packages: one package, commands and configs in it, which works where no checkout is."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from omniimage.commands import command

ROOT = Path(__file__).parents[1]
NOT_SOURCES = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "runs", "build", "dist", "site")
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def build(kind: str, source: Path, into: Path) -> Path:
  into.mkdir(exist_ok=True)
  done = subprocess.run([sys.executable, "-c", BUILD, kind, into], cwd=source, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  return into / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
  """The sdist of a copy of this checkout, and the wheel that is built of nothing but the sdist."""
  root = tmp_path_factory.mktemp("package")
  shutil.copytree(ROOT, root / "checkout", ignore=NOT_SOURCES)
  sdist = build("build_sdist", root / "checkout", root / "built")
  with tarfile.open(sdist) as archive:
    archive.extractall(root / "unpacked", filter="data")
  (unpacked,) = (root / "unpacked").iterdir()
  return sdist, build("build_wheel", unpacked, root / "built")


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
  """Runs a program where the wheel is and the checkout is not; its output, errors and exit code."""
  site = tmp_path_factory.mktemp("site")
  with zipfile.ZipFile(built[1]) as archive:
    archive.extractall(site)

  def run(*argv) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, *map(str, argv)]
    return subprocess.run(command, cwd=site.parent, env=environment, capture_output=True, text=True)

  return run


def test_a_wheel_has_one_package_and_every_file_that_the_code_reads(built):
  names = zipfile.ZipFile(built[1]).namelist()
  assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"omniimage"}
  wanted = [path.relative_to(ROOT) for path in (ROOT / "omniimage").rglob("*") if path.is_file()]
  wanted += [
    Path("omniimage") / path.relative_to(ROOT) for name in ("configs", "launch") for path in (ROOT / name).glob("*.py")
  ]
  wanted = {path.as_posix() for path in wanted if "__pycache__" not in path.parts}
  assert wanted - set(names) == set()
  (licences,) = ({name.rsplit("/")[-1] for name in names if "/licenses/" in name},)
  assert {"LICENSE", "NOTICE"} <= licences


def test_installed_it_is_the_same_commands_and_configs(installed):
  listed = installed("-m", "omniimage.launch")
  assert listed.returncode == 0 and "  train     Trains all the stages" in listed.stdout
  refused = installed("-m", "omniimage.launch", "trian")
  assert refused.returncode == 2 and "error: 'trian' is no command; they are prepare, train, " in refused.stderr
  unknown = installed("-m", "omniimage.launch", "train", "--config=scenes:large", "--workdir=run")
  assert unknown.returncode == 2 and "omniimage/configs/scenes.py, line " in unknown.stderr
  assert "has the variants demo and tiny, not 'large'" in unknown.stderr
  untrained = installed("-m", "omniimage.launch", "sample", "--workdir=run", "--prompt=a star", "--out=star.png")
  assert (
    untrained.returncode == 2
    and "is not a run: it has no config.json; train one with omniimage train " in untrained.stderr
  )


def test_a_config_of_ones_own_builds_on_those_that_are_there(installed, tmp_path):
  mine = tmp_path / "mine.py"
  mine.write_text("from . import scenes\n\n\ndef get_config():\n  return scenes.get_config('tiny')\n")
  program = "from omniimage.launch import config_file; print(config_file.load({!r}).prior.width)"
  assert installed("-c", program.format(str(mine))).stdout == "64\n"
  assert installed("-c", program.format("configs/omni.py:1b")).stdout == "2048\n"


def test_a_checkout_has_its_commands_beside_it():
  assert command("train") == "python -m launch.train"
