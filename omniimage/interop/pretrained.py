"""A trained run as one folder of safetensors and JSON, without its optimizer: to be kept, given away and drawn with.

    config.json              the settings of the run, as its own config.json has them
    model.safetensors        the parameters, averages where the run keeps them: prior.layers.mlp.up.kernel, …
    tokenizer.json           the text vocabulary
    pretrained.json          step and seconds of the training

Larger models are in several files with an index, as elsewhere. Every command that reads a run reads such a folder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from omniimage import strict_json, versions
from omniimage.buckets import is_remote
from omniimage.checkpoint import by_path
from omniimage.data.text import TextTokenizer
from omniimage.errors import UserError
from omniimage.files import write_whole
from omniimage.interop import safetensors_files
from omniimage.models.omni import Params
from omniimage.settings import Settings
from omniimage.workdir import Run, Workdir, check_vocabulary

ABOUT = "pretrained.json"  # written last: a folder that has it is whole


def is_pretrained(folder: Path) -> bool:
  found = (folder / ABOUT).is_file()
  if found and is_remote(folder):
    raise UserError(f"{folder} is an exported model, which is read from a disk; copy the folder here first")
  return found


def write(run: Run, workdir: Workdir, out: Path, dtype: str = "float32"):
  """Writes a run into a folder that is there already, its arrays as `dtype`. UserError where the package safetensors is
  missing."""
  leaves = {_name(path): leaf for path, leaf in by_path(run.params).items()}
  shapes = {name: leaf.shape for name, leaf in leaves.items()}
  safetensors_files.library()  # makes bfloat16 a type of NumPy's
  safetensors_files.write(out, shapes, lambda name: np.asarray(leaves[name]), np.dtype(dtype))
  config, _ = workdir.read_config()
  Workdir(out).write_config(config)
  write_whole(out / "tokenizer.json", workdir.vocabulary_of(run.settings).read_bytes())
  about = {"step": run.step, "seconds": dict(run.seconds), "vocabulary": run.text_tokenizer.fingerprint, "dtype": dtype}
  safetensors_files.write_json(out / ABOUT, versions.stamped(about | {"config": config}))


def read(folder: Path, settings: Settings, text_tokenizer: TextTokenizer, abstract: Params) -> Run:
  """The run in such a folder. UserError, naming the tensor or the file, where it is not whole or of other settings.

  Args:
    abstract: shapes of the parameters that the settings ask for.
  """
  about, files = _about(folder), safetensors_files.SafeTensors(folder)
  written_in = versions.checkpoint_format(about, str(folder))
  check_vocabulary(about, settings, text_tokenizer, str(folder))
  wanted = _named(by_path(abstract), files, written_in)
  _check(folder, files, wanted)
  leaves = [jax.device_put(files.read(name).astype(leaf.dtype), leaf.sharding) for name, leaf in wanted.items()]
  params = jax.tree.unflatten(jax.tree.structure(abstract), leaves)
  return Run(settings, params, text_tokenizer, about["step"], about["seconds"])


def _named(leaves: Mapping[str, Any], files: safetensors_files.SafeTensors, written_in: int) -> dict[str, Any]:
  """Leaves by the names of their tensors, which were written in some format."""
  stored = [f"params/{name.replace('.', '/')}" for name in files.names]
  places = versions.stored_paths([f"params/{path}" for path in leaves], stored, written_in)
  return {_name(places.get(f"params/{path}", path).removeprefix("params/")): leaf for path, leaf in leaves.items()}


def _about(folder: Path) -> dict[str, Any]:
  try:
    about = strict_json.loads((folder / ABOUT).read_bytes())
    about["config"]["data"]["vocabulary"]
    return {**about, "step": int(about["step"]), "seconds": dict(about["seconds"])}
  except (OSError, ValueError, TypeError, KeyError):
    raise UserError(f"{folder / ABOUT} cannot be read; export the run again") from None


def _check(folder: Path, files: safetensors_files.SafeTensors, wanted: Mapping[str, Any]):
  """UserError unless the tensors are those of the settings. Reads headers only."""
  there = set(files.names)
  for name, leaf in wanted.items():
    if name not in there:
      raise UserError(f"{folder} has no tensor {name} {leaf.shape}, which its config.json makes us expect")
    if files.shape(name) != leaf.shape:
      raise UserError(f"{folder}: the tensor {name} is {files.shape(name)}; its config.json says {leaf.shape}")
    if files.dtype(name) not in safetensors_files.FLOATS:
      raise UserError(
        f"{folder}: the tensor {name} is {files.dtype(name)}; expected one of {', '.join(safetensors_files.FLOATS)}"
      )
  if unknown := sorted(there - set(wanted)):
    raise UserError(f"{folder}: the tensor {unknown[0]} is of no part of the model that its config.json describes")


def _name(path: str) -> str:
  return path.replace("/", ".")
