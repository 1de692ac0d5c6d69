"""Checkpoints: the training state by step, written in the background, verified when read. Only this file knows Orbax.

A state is saved as one flat dict {"params/prior/embed/text": array, …}: a checkpoint knows neither optax's classes nor
ours, and any subtree of it can be read alone, onto any mesh. Beside the arrays lie the caller's metadata and a checksum
of every array, because Orbax returns a flipped bit without a word.
"""

import contextlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import SingleDeviceSharding
from jax.tree_util import keystr
from orbax.checkpoint import v1 as ocp

from omniimage.errors import UserError
from omniimage.settings import require

ARRAYS, ABOUT = "state", "about"  # the two directories inside a checkpoint
DELETED = "deleted."  # prefix of a checkpoint that is being removed


class CheckpointError(UserError):
  """A checkpoint that cannot be written or read. The message is one line: what, where, what to do."""


class Checkpoints:
  """The checkpoints of a directory. With `keep`, can save, and keeps the last so many; without, only reads.

  On several hosts, all of them call every method.
  """

  def __init__(self, directory: str | os.PathLike, keep: int | None = None):
    if keep is not None and keep < 1:
      raise CheckpointError(f"cannot keep {keep} checkpoints; keep at least 1")
    remote = "://" in str(directory)
    self._directory = epath.Path(directory if remote else os.path.abspath(os.path.expanduser(directory)))
    self._atomic_rename = not remote
    self._keep = keep
    self._writer = None if keep is None else _writer(self._directory)
    self._pending = None

  def save(self, step: int, state: Any, metadata: Mapping[str, Any]):
    """Copies the state, which may then be donated, and writes it in the background. `metadata` is small JSON."""
    if self._writer is None:
      raise CheckpointError(f"{self._directory} was opened to be read; give Checkpoints a keep to save there")
    self.wait()
    if step in self.steps():
      raise CheckpointError(f"{self._directory} already holds step {step}; delete it or change the workdir")
    arrays = _by_path(state)
    checksums = _checksums(arrays)
    inventory = {path: (str(leaf.dtype), leaf.shape, checksums[path]) for path, leaf in arrays.items()}
    text = json.dumps({"metadata": metadata, "arrays": inventory})
    about = {"text": text, "checksum": zlib.crc32(text.encode())}
    with _one_line(f"{self._directory}/{step} cannot be written"):
      self._pending = self._writer.save_checkpointables_async(step, {ARRAYS: arrays, ABOUT: about}, force=True)

  def wait(self):
    """Returns once the last save is complete, and raises if it failed."""
    pending, self._pending = self._pending, None
    if pending is not None:
      with _one_line(f"a checkpoint could not be written to {self._directory}"):
        pending.result()
        self._forget_oldest()

  def close(self):
    try:
      self.wait()
    finally:
      if self._writer is not None:
        with contextlib.suppress(Exception):  # Orbax raises a failed save once more, which `wait` has raised
          self._writer.close()

  def steps(self) -> list[int]:
    """Steps of the complete checkpoints, ascending. One that was cut short bears another name and is not among them."""
    return sorted(found.step for found in ocp.path.step.standard_name_format().find_all(self._directory))

  def latest(self) -> int | None:
    return max(self.steps(), default=None)

  def metadata(self, step: int) -> dict[str, Any]:
    """The metadata given to `save`."""
    return self._about(step)["metadata"]

  def shapes(self, step: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every array of a checkpoint, by path: "params/prior/norm/scale"."""
    arrays = self._about(step)["arrays"]
    return {path: jax.ShapeDtypeStruct(shape, dtype) for path, (dtype, shape, _) in arrays.items()}

  def restore(self, step: int, abstract_state: Any) -> Any:
    """The state saved at a step. Leaves of `abstract_state` are ShapeDtypeStructs with the shardings to restore to."""
    return self._load(step, abstract_state, whole=True)

  def restore_params(self, step: int, abstract: Any) -> Any:
    """Subtrees of the state by the names of its fields: {"params": …, "ema": …} samples without the optimizer."""
    return self._load(step, abstract, whole=False)

  def _load(self, step: int, abstract: Any, whole: bool) -> Any:
    inventory = self._about(step)["arrays"]
    asked = _by_path(abstract)
    difference = _difference(inventory, asked, whole)
    if difference:
      raise CheckpointError(
        f"{self._directory}/{step} holds another model than the config describes, "
        f"use the config that it was trained with or another workdir: {difference}"
      )
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    with context, self._reading(step):
      arrays = ocp.load(self._directory / str(step), _targets(asked), checkpointable_name=ARRAYS)
      damaged = [path for path, checksum in _checksums(arrays).items() if checksum != inventory[path][2]]
      require(not damaged, f"{_some(damaged)} differs from what was saved")
    return jax.tree.unflatten(jax.tree.structure(abstract), [arrays[path] for path in asked])

  def _about(self, step: int) -> dict[str, Any]:
    """The metadata of a checkpoint, and the dtype, shape and checksum of its arrays. No array is read."""
    if step not in self.steps():
      raise CheckpointError(f"{self._directory} has no checkpoint of step {step}; it has {self.steps()}")
    with self._reading(step):
      about = ocp.load_checkpointables(self._directory / str(step), {ABOUT: None})[ABOUT]
      require(zlib.crc32(about["text"].encode()) == about["checksum"], "its metadata differs from what was saved")
      return json.loads(about["text"])

  def _reading(self, step: int):
    others = [other for other in self.steps() if other != step]
    return _one_line(f"{self._directory}/{step} cannot be restored (the other steps there are {others})")

  def _forget_oldest(self):
    """Keeps the last checkpoints. Renamed before deleted: a deletion cut short must not leave half of one behind."""
    if jax.process_index() == 0:
      for step in self.steps()[: -self._keep]:
        path = self._directory / str(step)
        if self._atomic_rename:
          path = path.rename(self._directory / f"{DELETED}{step}")
        path.rmtree()


def _writer(directory: epath.Path) -> ocp.training.Checkpointer:
  """Orbax's own manager, after clearing away what a killed process left half written or half deleted."""
  context = ocp.Context()
  context.array.saving.enable_write_sharding_file = False  # restoring always says where to
  context.array.saving.min_slice_bytes_for_replica_parallel = 2**20  # else even a norm's scale is cut up by device
  with _one_line(f"cannot write checkpoints to {directory}; choose another workdir"):
    writer = ocp.training.Checkpointer(directory, context=context, cleanup_tmp_directories=True)
    if jax.process_index() == 0:
      for leftover in directory.glob(f"{DELETED}*"):
        leftover.rmtree()
    require("://" in str(directory) or os.access(directory, os.W_OK), "it is not writable")
  return writer


@contextlib.contextmanager
def _one_line(what: str):
  """Whatever goes wrong inside becomes a CheckpointError of one line; Orbax's own fill pages."""
  try:
    yield
  except Exception as error:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise CheckpointError(f"{what}: {reason[:300]}") from error


def _by_path(tree: Any) -> dict[str, Any]:
  return {keystr(path, simple=True, separator="/"): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _targets(asked: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
  """What to restore; a leaf without a sharding goes to the first device."""
  default = SingleDeviceSharding(jax.devices()[0])
  return {
    path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or default)
    for path, leaf in asked.items()
  }


def _difference(inventory: Mapping[str, Any], asked: Mapping[str, Any], whole: bool) -> str:
  """In words; empty if all that is asked for is stored in that shape and dtype and, if `whole`, nothing else is."""
  stored = {path: f"{dtype}{shape}" for path, (dtype, shape, _) in inventory.items()}
  wanted = {path: f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in asked.items()}
  both = [path for path in wanted if path in stored and wanted[path] != stored[path]]
  changed = _some([f"{path} is {stored[path]} there and {wanted[path]} here" for path in both])
  missing = _some([path for path in wanted if path not in stored])
  extra = _some([path for path in stored if path not in wanted and whole])
  found = (changed, missing and f"it lacks {missing}", extra and f"only there: {extra}")
  return "; ".join(filter(None, found))


def _checksums(arrays: Mapping[str, Array]) -> dict[str, int]:
  """Σ bits · (2·index + 1) mod 2³² of each array, the same on every mesh. Odd weights: any one changed bit shows.

  On the host, where nothing is compiled and no device waits for another.
  """
  sums = np.array([_local_checksum(array) for array in arrays.values()], np.uint32)
  if jax.process_count() > 1:
    sums = multihost_utils.process_allgather(sums).sum(0, dtype=np.uint32)
  return dict(zip(arrays, sums.tolist()))


def _local_checksum(array: Array) -> int:
  """The part of the sum over the elements that this process stores; a replicated element counts once."""
  total = 0
  for shard in array.addressable_shards:
    if shard.replica_id == 0:
      values = np.ascontiguousarray(shard.data)
      index = np.zeros((), np.uint32)
      for axis, (size, place) in enumerate(zip(array.shape, shard.index)):
        along = np.arange(*place.indices(size), dtype=np.uint32)
        index = index * np.uint32(size) + np.expand_dims(along, [d for d in range(array.ndim) if d != axis])
      bits = values.view(f"uint{8 * values.itemsize}").astype(np.uint32)
      total += int(np.sum(bits * (2 * index + 1), dtype=np.uint32))
  return total % 2**32


def _some(names: Iterable[str], most: int = 3) -> str:
  names = sorted(names)
  return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
