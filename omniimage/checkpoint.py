"""Checkpoints: the training state by step, written in the background, verified when read. Only this file knows Orbax.

  DIRECTORY/STEP/state/                  the arrays, written by Orbax, every process its own shards
  DIRECTORY/STEP/about.json              the caller's metadata; dtype and shape of every array by path
  DIRECTORY/STEP/manifest.P-of-N.json    of every process: size and SHA-256 of its share of the files
  DIRECTORY/STEP/complete.json           the same of about.json and the manifests, and of itself; written last

A directory without complete.json is no checkpoint. A state is saved as one flat dict {"params/prior/embed/text": array,
…}: a checkpoint knows neither optax's classes nor ours, and any subtree of it can be read alone, onto any mesh by any
number of processes. Nothing in it is code: JSON, and numbers that Orbax reads through TensorStore; no pickle.
"""

import contextlib
import json
import os
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import SingleDeviceSharding
from jax.tree_util import keystr
from orbax.checkpoint import v1 as ocp

from omniimage.errors import CheckpointError
from omniimage.files import flush
from omniimage.manifests import (
  ABOUT,
  COMPLETE,
  THREADS,
  all_wrong,
  first_line,
  seal,
  some,
  to_json,
  unsealed,
  wait_for,
  wrong,
)
from omniimage.settings import require

ARRAYS = "state"
SAVING, DELETED, DAMAGED = "saving.", "deleted.", "damaged."  # prefixes of what is not, or no longer, a checkpoint


class Checkpoints:
  """The checkpoints of a directory. With `keep`, can save, and keeps the last so many; without, only reads.

  On several hosts, all of them call every method but `check`, in the same order. Process 0 alone makes, renames and
  deletes directories, and says which steps exist.

  Args:
    keep_every: checkpoints of steps that are its multiples are kept for good; 0 for none.
  """

  def __init__(self, directory: str | os.PathLike, keep: int | None = None, keep_every: int = 0):
    if keep is not None and keep < 1:
      raise CheckpointError(f"cannot keep {keep} checkpoints; keep at least 1")
    self._local = "://" not in str(directory)
    self._directory = epath.Path(os.path.abspath(os.path.expanduser(directory)) if self._local else directory)
    self._keep, self._keep_every = keep, keep_every
    self._background, self._pending = ThreadPoolExecutor(1, "checkpoint"), None
    self._memory = {}  # of `_copies`
    self._verified = set()  # steps, the same on every process
    if keep is not None and jax.process_index() == 0:
      with _one_line(f"cannot write checkpoints to {self._directory}; choose another workdir"):
        self._directory.mkdir(parents=True, exist_ok=True)
        require(not self._local or os.access(self._directory, os.W_OK), "it is not writable")
        self._clear()

  def reserve(self, state: Any):
    """Makes, in the background, the memory that `save` copies such a state into; else the first save has to."""
    sizes = {(path, str(s.index)): s.data.nbytes for path, x in _on_host(state).items() for s in x.addressable_shards}
    self.wait()
    self._pending = self._background.submit(_reserve, sizes, self._memory)

  def save(self, step: int, state: Any, metadata: Mapping[str, Any]):
    """Copies the state, which may then be donated, and writes it in the background. `metadata` is small JSON."""
    if self._keep is None:
      raise CheckpointError(f"{self._directory} was opened to be read; give Checkpoints a keep to save there")
    self.wait()
    if step in self.steps():
      raise CheckpointError(f"{self._directory} already holds step {step}; delete it or change the workdir")
    with _one_line(f"{self._directory}/{step} cannot be written"):
      arrays = by_path(state)
      inventory = {path: [str(leaf.dtype), list(leaf.shape)] for path, leaf in arrays.items()}
      about = to_json({"metadata": metadata, "arrays": inventory})
      if jax.process_index() == 0:  # before any process creates it anew: Orbax holds them all up at its beginning
        _remove(self._unfinished(step))
      arrays |= _copies(_on_host(state), self._memory)
      with _writing():
        written = ocp.save_async(self._unfinished(step), arrays, checkpointable_name=ARRAYS)
    self._verified.discard(step)
    self._pending = self._background.submit(self._finish, step, written, about)

  def check(self):
    """Raises as soon as the save in the background has failed. Costs nothing."""
    if self._pending is not None and self._pending.done():
      self.wait()

  def wait(self):
    """Returns once the last save is complete, and raises if it failed."""
    pending, self._pending = self._pending, None
    if pending is not None:
      pending.result()

  def close(self):
    try:
      self.wait()
    finally:
      self._background.shutdown()
      self._memory.clear()

  def steps(self) -> list[int]:
    """Steps of the complete checkpoints, ascending."""
    return json.loads(_from_each(json.dumps(self._found()))[0])

  def latest(self) -> int | None:
    return max(self.steps(), default=None)

  def newest_good(self, most: int | None = None) -> int | None:
    """The newest step, of at most `most`, whose checkpoint is undamaged. Warns of those it passes, and sets them aside.

    A damaged checkpoint becomes `damaged.STEP`, if this object may write, so that its step can be saved again.
    """
    self.wait()
    passed, good = {}, None
    for step in reversed([step for step in self.steps() if most is None or step <= most]):
      wrong = self.damage(step)
      if not wrong:
        good = step
        break
      passed[step] = wrong
    instead = "no older one is whole" if good is None else f"falls back to step {good}"
    if jax.process_index() == 0:
      for step, wrong in passed.items():
        logging.warning("%s/%d is damaged: %s; %s", self._directory, step, wrong, instead)
        if self._keep is not None:
          self._set_aside(step)
    return good

  def damage(self, step: int) -> str:
    """What is wrong with the files of a checkpoint, in words; empty if every one of them is as it was written."""
    self._require(step)
    try:
      faults = all_wrong(self._directory / str(step))
    except Exception as error:  # the other processes wait to hear from this one
      faults = [first_line(error)]
    found = "; ".join(dict.fromkeys(filter(None, _from_each(some(faults)))))
    (self._verified.discard if found else self._verified.add)(step)
    return found

  def drop_after(self, step: int):
    """Deletes the checkpoints of all later steps, for good; of a run that went wrong there."""
    if self._keep is None:
      raise CheckpointError(f"{self._directory} was opened to be read; give Checkpoints a keep to delete there")
    self.wait()
    self._verified = {verified for verified in self._verified if verified <= step}
    if jax.process_index() == 0:
      with _one_line(f"checkpoints after step {step} in {self._directory} cannot be deleted"):
        for later in [found for found in self._found() if found > step]:
          self._delete(self._directory / str(later))

  def metadata(self, step: int) -> dict[str, Any]:
    """The metadata given to `save`."""
    return self._about(step)["metadata"]

  def shapes(self, step: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every array of a checkpoint, by path: "params/prior/norm/scale"."""
    arrays = self._about(step)["arrays"]
    return {path: jax.ShapeDtypeStruct(shape, dtype) for path, (dtype, shape) in arrays.items()}

  def restore(self, step: int, abstract_state: Any) -> Any:
    """The state saved at a step. Leaves of `abstract_state` are ShapeDtypeStructs with the shardings to restore to."""
    return self._load(step, abstract_state, whole=True)

  def restore_params(self, step: int, abstract: Any) -> Any:
    """Subtrees of the state by the names of its fields: {"params": …, "ema": …} samples without the optimizer."""
    return self._load(step, abstract, whole=False)

  def _load(self, step: int, abstract: Any, whole: bool) -> Any:
    inventory = self._about(step)["arrays"]
    asked = by_path(abstract)
    difference = _difference(inventory, asked, whole)
    if difference:
      raise CheckpointError(
        f"{self._directory}/{step} holds another model than the config describes, "
        f"use the config that it was trained with or another workdir: {difference}"
      )
    wrong = "" if step in self._verified else self.damage(step)
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    with context, self._reading(step):
      require(not wrong, wrong)
      arrays = ocp.load(self._directory / str(step), _targets(asked), checkpointable_name=ARRAYS)
    return jax.tree.unflatten(jax.tree.structure(abstract), [arrays[path] for path in asked])

  def _about(self, step: int) -> dict[str, Any]:
    """The metadata of a checkpoint, and the dtype and shape of its arrays. No array is read."""
    self._require(step)
    place = self._directory / str(step)
    with self._reading(step):
      fault = wrong(place, ABOUT, unsealed(place)[ABOUT])
      require(not fault, fault)
      return json.loads((place / ABOUT).read_bytes())

  def _require(self, step: int):
    steps = self.steps()
    if step not in steps:
      raise CheckpointError(f"{self._directory} has no checkpoint of step {step}; it has {steps}")

  def _reading(self, step: int):
    others = [other for other in self.steps() if other != step]
    return _one_line(f"{self._directory}/{step} cannot be restored (the other steps there are {others})")

  def _found(self) -> list[int]:
    """`steps` as this process sees them."""
    names = [path.name for path in self._directory.iterdir()] if self._directory.exists() else []
    return sorted(int(name) for name in names if _is_step(name) and (self._directory / name / COMPLETE).exists())

  def _unfinished(self, step: int) -> epath.Path:
    """Where a checkpoint is written. Object stores cannot rename, and the last file alone decides there."""
    return self._directory / (f"{SAVING}{step}" if self._local else str(step))

  def _finish(self, step: int, written: Any, about: bytes):
    """In the background, once Orbax has copied the arrays."""
    try:
      with _one_line(f"the checkpoint of step {step} could not be written to {self._directory}"):
        written.result()
        place, final = self._unfinished(step), self._directory / str(step)
        seal(place, about)
        if jax.process_index() > 0:
          wait_for(lambda: (final / COMPLETE).exists() or not place.exists(), f"{final}/{COMPLETE}")
          wait_for((final / COMPLETE).exists, f"{final}/{COMPLETE}, which process 0 may have given up", seconds=60.0)
        elif self._local:
          place.rename(final)
          flush(self._directory)
    except BaseException:
      self._memory.clear()  # threads that did not fail may still read it
      if jax.process_index() == 0:
        with contextlib.suppress(OSError):  # the disk that failed may fail again; what failed first is to be told
          self._clear()
      raise
    if jax.process_index() == 0:
      with _one_line(f"the oldest checkpoints in {self._directory} cannot be deleted"):
        for old in self._found()[: -self._keep]:
          if not (self._keep_every and old % self._keep_every == 0):
            self._delete(self._directory / str(old))

  def _clear(self):
    """Removes what a save or a deletion that was cut short has left."""
    for path in list(self._directory.iterdir()):
      unmarked = _is_step(path.name) and not (path / COMPLETE).exists()
      if unmarked and self._local:  # by no save, which bears another name until then: it has lost its marker
        logging.warning("%s has no %s and is set aside", path, COMPLETE)
        self._set_aside(int(path.name))
      elif unmarked or path.name.startswith((SAVING, DELETED)) or path.name.endswith(".orbax-checkpoint-tmp"):
        _remove(path)

  def _set_aside(self, step: int):
    aside = self._directory / f"{DAMAGED}{step}"
    with _one_line(f"{self._directory}/{step} is damaged and cannot be renamed"):
      if aside.exists():
        self._delete(aside)
      if not self._local:  # file by file: what is cut short must not pass for a checkpoint
        (self._directory / str(step) / COMPLETE).unlink(missing_ok=True)
      (self._directory / str(step)).rename(aside)

  def _delete(self, path: epath.Path):
    """So that no half of a checkpoint is left of a deletion cut short."""
    if self._local:
      doomed = self._directory / f"{DELETED}{path.name}"
      if doomed.exists():
        doomed.rmtree()
      path = path.rename(doomed)
    else:
      (path / COMPLETE).unlink(missing_ok=True)
    path.rmtree()


def _is_step(name: str) -> bool:
  return re.fullmatch("0|[1-9][0-9]*", name) is not None


def _writing() -> ocp.Context:
  context = ocp.Context()
  context.array.saving.enable_write_sharding_file = False  # restoring always says where to
  context.array.saving.min_slice_bytes_for_replica_parallel = 2**20  # else even a norm's scale is cut up by device
  context.array.saving.use_compression = False  # saves 8 % of the bytes, and takes the training's processors for it
  context.array.saving.ocdbt_target_data_file_size = 2**30  # so that several threads can hash
  return context


def _on_host(state: Any) -> dict[str, Array]:
  """The arrays on CPU devices. Their memory Orbax would read in place, while it writes.

  A step that donates them meanwhile would have XLA copy them, in one thread and small pages: several times slower than
  to copy them here. New memory costs more yet; so it is kept from save to save. That makes no higher peak, as steps run
  while a checkpoint is written.
  """
  arrays = {path: leaf for path, leaf in by_path(state).items() if isinstance(leaf, Array)}
  return {path: array for path, array in arrays.items() if {d.platform for d in array.devices()} == {"cpu"}}


def _reserve(sizes: Mapping[tuple[str, str], int], memory: dict[tuple[str, str], np.ndarray]):
  for place, size in sizes.items():
    memory[place] = _aligned(size)
    memory[place].fill(0)  # only now does it exist


def _copies(arrays: Mapping[str, Array], memory: dict[tuple[str, str], np.ndarray]) -> dict[str, Array]:
  """The arrays, copied into `memory`, by path and index of the shard."""
  used = set()

  def copied(path: str, array: Array) -> Array:
    own = []
    for shard in array.addressable_shards:
      values, place = np.asarray(shard.data), (path, str(shard.index))
      if place not in memory or memory[place].nbytes != values.nbytes:
        memory[place] = _aligned(values.nbytes)
      copy = memory[place].view(values.dtype).reshape(values.shape)
      if place not in used:  # replicas share their copy
        np.copyto(copy, values)
      used.add(place)
      own.append(jax.device_put(copy, shard.device))
    return jax.make_array_from_single_device_arrays(array.shape, array.sharding, own)

  with ThreadPoolExecutor(THREADS) as pool:
    copies = dict(zip(arrays, pool.map(copied, arrays.keys(), arrays.values())))
  for place in memory.keys() - used:
    del memory[place]
  return copies


def _aligned(size: int, alignment: int = 64) -> np.ndarray:
  """Memory that a CPU device takes over as it is."""
  memory = np.empty(size + alignment, np.uint8)
  start = -memory.ctypes.data % alignment
  return memory[start : start + size]


def _remove(path: epath.Path, seconds: float = 5.0):
  """Deletes a folder that threads of a save that failed may still be writing to."""
  stop = time.monotonic() + seconds
  while path.exists():
    try:
      path.rmtree()
    except OSError:
      if time.monotonic() > stop:
        raise
    time.sleep(0.05)


def _from_each(text: str) -> list[str]:
  """The text of every process, on every process."""
  if jax.process_count() == 1:
    return [text]
  own = np.frombuffer(text.encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(own.size)).ravel()
  padded = np.pad(own, (0, sizes.max() - own.size))
  return [row[:size].tobytes().decode() for row, size in zip(multihost_utils.process_allgather(padded), sizes)]


@contextlib.contextmanager
def _one_line(what: str):
  """Whatever goes wrong inside becomes a CheckpointError of one line; Orbax's own fill pages."""
  try:
    yield
  except Exception as error:
    raise CheckpointError(f"{what}: {first_line(error)}") from error


def by_path(tree: Any) -> dict[str, Any]:
  """The leaves of a tree, by their paths in a checkpoint."""
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
  stored = {path: f"{dtype}{shape}" for path, (dtype, shape) in inventory.items()}
  wanted = {path: f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in asked.items()}
  both = [path for path in wanted if path in stored and wanted[path] != stored[path]]
  changed = some([f"{path} is {stored[path]} there and {wanted[path]} here" for path in both])
  missing = some([path for path in wanted if path not in stored])
  extra = some([path for path in stored if path not in wanted and whole])
  found = (changed, missing and f"it lacks {missing}", extra and f"only there: {extra}")
  return "; ".join(filter(None, found))
