"""The notebooks run from the first cell to the last, in a kernel of this interpreter, at a few steps."""

import importlib.util
import json
import os
import pathlib
import re
import sys

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from packaging.requirements import Requirement

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
PICTURES = {  # ids of the cells that show some
  "quickstart": ["sheet", "draw", "tokens", "tokens", "chunks"],
  "own_images": ["record", "sheet", "draw"],
  "conversation": [*["data"] * 6, "talk", "edit", "sketch"],
  "painting": ["tokens", "layouts", "steps", "guidance", "again"],
  "pod": ["compare"],
}


@pytest.fixture
def kernel(tmp_path):
  """A manager of kernels that are this interpreter, whatever others are installed for the user."""
  environment = {
    "OMNIIMAGE_STEPS": "2",
    "JAX_PLATFORMS": "cpu",
    # One device; compiled quickly rather than well, as in conftest.py.
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
  }
  command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
  spec = {"argv": command, "display_name": "tests", "language": "python", "env": environment}
  folder = tmp_path / "kernels" / "tests"
  folder.mkdir(parents=True)
  (folder / "kernel.json").write_text(json.dumps(spec))
  specs = KernelSpecManager(kernel_dirs=[str(folder.parent)])
  return AsyncKernelManager(kernel_name="tests", kernel_spec_manager=specs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs(path, kernel, tmp_path, monkeypatch):
  if path.stem == "pod" and importlib.util.find_spec("libtpu") is None:
    pytest.skip("needs libtpu, the extra `tpu`")
  monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
  monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
  notebook = nbformat.read(path, as_version=4)
  client = NotebookClient(notebook, km=kernel, timeout=300, resources={"metadata": {"path": str(ROOT)}})
  client.execute(env=dict(os.environ))
  pictures = [
    cell["id"] for cell in notebook.cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", ())
  ]
  assert pictures == PICTURES[path.stem]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_is_stored_without_outputs(path):
  cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
  assert not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.parametrize("checkout", [True, False], ids=["checkout", "elsewhere"])
@pytest.mark.parametrize("gpu", [True, False], ids=["GPU", "CPU"])
@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem != "pod"], ids=lambda path: path.stem)
def test_where_there_is_a_gpu_the_package_is_installed_with_what_it_needs(path, gpu, checkout, monkeypatch):
  (cell,) = (cell for cell in nbformat.read(path, as_version=4).cells if cell.id == "install")
  there = {"/dev/nvidia0": gpu, "../pyproject.toml": checkout}
  with monkeypatch.context() as pretended:
    pretended.setattr(importlib.util, "find_spec", lambda name: None)
    pretended.setattr(pathlib.Path, "exists", lambda self: there[str(self)])
    asked = {}
    exec(re.sub("%pip install --quiet (.*)", r"asked = f'''\1'''", cell.source), asked)
  wanted, also = asked["asked"].rsplit(" ", 1)
  package = Requirement(wanted.strip('"'))
  assert (package.name, package.extras, also) == ("omniimage", {"cuda"} if gpu else set(), "matplotlib")
  assert package.url.startswith("file:///" if checkout else "git+https://")
