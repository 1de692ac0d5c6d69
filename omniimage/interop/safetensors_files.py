"""Tensors in the safetensors files of a folder, one or many, read one at a time."""

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from omniimage.errors import UserError
from omniimage.files import write_whole

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
FLOATS = ("F32", "BF16", "F16")
MOST_BYTES = 2**31  # of a file that is written, unless one tensor is larger


def library():
  """The `safetensors` package, which is an extra."""
  try:
    import ml_dtypes  # noqa: F401  # makes bfloat16 a type of NumPy's
    import safetensors
    import safetensors.numpy
  except ImportError:
    raise UserError("safetensors files need the package safetensors: pip install 'omniimage[interop]'") from None
  return safetensors


class SafeTensors:
  """The tensors of a folder by name. UserError, naming the file, where one is missing or broken."""

  def __init__(self, folder: Path):
    self.folder = folder
    self._open = functools.cache(self._opened)
    self._places = {name: file for file in self._files() for name in self._open(file).keys()}  # noqa: SIM118

  @property
  def names(self) -> Iterable[str]:
    return self._places.keys()

  def shape(self, name: str) -> tuple[int, ...]:
    return tuple(self._slice(name).get_shape())

  def dtype(self, name: str) -> str:
    """F32, BF16, …"""
    return self._slice(name).get_dtype()

  def read(self, name: str) -> np.ndarray:
    """A tensor in float32."""
    return self._open(self._places[name]).get_tensor(name).astype(np.float32)

  def _slice(self, name: str):
    return self._open(self._places[name]).get_slice(name)

  def _files(self) -> list[str]:
    index = self.folder / INDEX
    if index.is_file():
      named = read_json(index).get("weight_map")
      files = sorted(set(named.values())) if isinstance(named, dict) and named else [None]
      if wrong := [file for file in files if not isinstance(file, str) or Path(file).name != file]:
        raise UserError(f"{index}: weight_map must name files of its folder, not {wrong[0]!r}")
    else:
      files = [SINGLE] if (self.folder / SINGLE).exists() else sorted(x.name for x in self.folder.glob("*.safetensors"))
    if not files:
      raise UserError(f"{self.folder} has no {SINGLE}; give the folder of a model whose weights are safetensors files")
    if missing := [file for file in files if not (self.folder / file).is_file()]:
      raise UserError(f"{self.folder} lacks {missing[0]}, which {INDEX} names; download the whole of the model")
    return files

  def _opened(self, file: str):
    try:
      return library().safe_open(self.folder / file, framework="numpy")
    except UserError:
      raise
    except Exception as error:  # SafetensorError, and of the file system
      raise UserError(f"{self.folder / file} cannot be read: {error}; download it again") from None


def write(folder: Path, tensors: Mapping[str, tuple[int, ...]], values: Callable[[str], np.ndarray], dtype: np.dtype):
  """Writes tensors, of these shapes by name, to the files of a folder; `values(name)` is asked for one at a time.

  What is in memory at one time is one file.
  """
  bundles, size = [[]], 0
  for name, shape in tensors.items():
    own = int(np.prod(shape)) * dtype.itemsize
    if bundles[-1] and size + own > MOST_BYTES:
      bundles.append([])
      size = 0
    bundles[-1].append(name)
    size += own
  single, places = len(bundles) == 1, {}
  for number, names in enumerate(bundles, 1):
    file = SINGLE if single else f"model-{number:05}-of-{len(bundles):05}.safetensors"
    write_file(folder / file, {name: values(name).astype(dtype) for name in names}, {"format": "pt"})
    places |= dict.fromkeys(names, file)
  if not single:
    total = sum(int(np.prod(shape)) for shape in tensors.values()) * dtype.itemsize
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def write_file(file: Path, tensors: Mapping[str, np.ndarray], about: Mapping[str, str]):
  """Writes one file, with something about it."""
  unfinished = file.with_name(f"{file.name}.tmp")
  library().numpy.save_file(dict(tensors), unfinished, metadata=dict(about))
  unfinished.rename(file).chmod(0o644)  # the library leaves it to its owner alone


def read_file(file: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """The tensors of one file, as they are, and what it says about them. UserError where it cannot be read."""
  try:
    with library().safe_open(file, framework="numpy") as opened:
      return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
  except UserError:
    raise
  except Exception as error:  # SafetensorError, and of the file system
    raise UserError(f"{file} cannot be read: {error}; make it again") from None


def read_json(file: Path) -> dict[str, Any]:
  """The object in a JSON file. UserError where there is none."""
  try:
    found = json.loads(file.read_text(encoding="utf-8"))
  except OSError as error:
    raise UserError(
      f"{file} cannot be read: {error.strerror}; give the folder of a model in Hugging Face's form"
    ) from None
  except (ValueError, RecursionError) as error:
    raise UserError(f"{file} is no JSON: {error}; download it again") from None
  if not isinstance(found, dict):
    raise UserError(f"{file} is no JSON object; download it again")
  return found


def write_json(file: Path, value: Any):
  write_whole(file, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
