"""Checkpoints: the training state by step, written in the background, verified when read. Only this file knows Orbax.

  DIRECTORY/STEP/state/                  the arrays, written by Orbax, every process its own shards
  DIRECTORY/STEP/about.json              the caller's metadata; dtype and shape of every array by path
  DIRECTORY/STEP/manifest.P-of-N.json    of every process: size and SHA-256 of its share of the files
  DIRECTORY/STEP/complete.json           the step; the same of about.json and the manifests, and of itself; written last

A directory without complete.json is no checkpoint. A state is saved as one flat dict {"params/prior/embed/text": array,
…}: a checkpoint knows neither optax's classes nor ours, and any subtree of it can be read alone, onto any mesh by any
number of processes. Nothing in it is code: JSON, and numbers that Orbax reads through TensorStore; no pickle.
"""

import contextlib
import json
import logging as standard_logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax
from absl import logging
from jax.sharding import SingleDeviceSharding
from jax.tree_util import keystr
from orbax.checkpoint import v1 as ocp

from omniimage import array_index
from omniimage.bucket_folders import BucketFolders
from omniimage.buckets import is_remote
from omniimage.distributed.agree import first_says, from_each
from omniimage.errors import CheckpointError
from omniimage.host_memory import HostMemory, sizes
from omniimage.manifests import (
  ABOUT,
  COMPLETE,
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
from omniimage.step_folders import StepFolders, check_path

# Orbax starts a task for each array, and raises what the first that fails has met; asyncio would print all others.
standard_logging.getLogger("asyncio").addFilter(lambda record: "orbax" not in record.getMessage())

ARRAYS = "state"
T = TypeVar("T")


class NoneWhole(CheckpointError):
  """There are checkpoints, but none of them is as it was saved."""


class Checkpoints:
  """The checkpoints of a directory. With `keep`, can save, and keeps the last so many; without, only reads.

  On several hosts, all of them call every method but `check`, in the same order. Process 0 alone makes, renames and
  deletes directories, and says which steps exist.

  Args:
    keep_every: checkpoints of steps that are its multiples are kept for good; 0 for none.
    saved: is called, on process 0, in the background, each time a checkpoint is complete.
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    keep: int | None = None,
    keep_every: int = 0,
    saved: Callable[[], None] = lambda: None,
  ):
    if keep is not None and keep < 1:
      raise CheckpointError(f"cannot keep {keep} checkpoints; keep at least 1")
    self._folders = (BucketFolders if is_remote(directory) else StepFolders)(directory)
    self._directory = self._folders.directory
    self._keep, self._keep_every, self._saved = keep, keep_every, saved
    self._background, self._pending = ThreadPoolExecutor(1, "checkpoint"), None
    self._memory = HostMemory()
    self._verified = set()  # steps, the same on every process
    check_path(self._directory, write=keep is not None)
    if keep is not None and jax.process_index() == 0:
      with _one_line(f"cannot write checkpoints to {self._directory}; choose another workdir"):
        self._folders.create()
        self._folders.clear()

  def reserve(self, state: Any):
    """Makes, in the background, the memory that `save` copies such a state into; else the first save has to."""
    needed = sizes(by_path(state))
    self.wait()
    self._pending = self._background.submit(self._memory.reserve, needed)

  def save(self, step: int, state: Any, metadata: Mapping[str, Any]):
    """Copies the state, which may then be donated, and writes it in the background. `metadata` is small JSON."""
    self._require_keep("save")
    self.wait()
    if step in self.steps():
      raise CheckpointError(
        f"{self._directory} already holds step {step}, which came there while this run went on: is another process "
        "training in this workdir? The same command goes on from the newest checkpoint"
      )
    with _one_line(f"{self._directory}/{step} cannot be written"):
      arrays = by_path(state)
      inventory = {path: [str(leaf.dtype), list(leaf.shape)] for path, leaf in arrays.items()}
      about = to_json({"metadata": metadata, "arrays": inventory})
      if jax.process_index() == 0:  # before any process creates it anew: Orbax holds them all up at its beginning
        self._folders.begin(step)
      arrays |= self._memory.copies(arrays)
      with _writing():
        written = ocp.save_async(self._folders.unfinished(step), arrays, checkpointable_name=ARRAYS)
    self._verified.discard(step)
    self._pending = self._background.submit(self._finish, step, written, about, inventory)

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
    return json.loads(from_each(json.dumps(self._folders.complete()))[0])

  def latest(self) -> int | None:
    return max(self.steps(), default=None)

  def newest_good(self, most: int | None = None) -> int | None:
    """The newest step, of at most `most`, whose checkpoint is whole; None where there is no checkpoint of such a step.

    Warns of those it passes. They become `damaged.STEP`, if this object may write, so that their steps can be saved
    again. Raises NoneWhole where all are damaged, and leaves them as they are.
    """
    self.wait()
    passed, good = {}, None
    for step in reversed([step for step in self._all_steps() if most is None or step <= most]):
      wrong = self.damage(step)
      if not wrong:
        good = step
        break
      if step in self._all_steps():  # else the run that writes here has deleted it meanwhile
        passed[step] = wrong
    if passed and good is None:
      faults = "; ".join(f"step {step}: {wrong}" for step, wrong in passed.items())
      raise NoneWhole(f"no checkpoint in {self._directory} is whole, {faults}")
    for step, wrong in passed.items() if jax.process_index() == 0 else ():
      logging.warning("%s/%d is damaged: %s; falls back to step %d", self._directory, step, wrong, good)
    if passed and self._keep is not None:
      with _one_line(f"damaged checkpoints in {self._directory} cannot be renamed"):
        first_says(lambda: self._folders.set_aside(*passed))
    return good

  def read_newest(self, read: Callable[[int], T], tries: int = 20) -> T | None:
    """What `read` makes of the newest whole checkpoint; None where there is none.

    A run may be writing here, and delete an old checkpoint while it is read: then the next newest is.
    """
    for _ in range(tries):
      step = self.newest_good()
      if step is None and not self._all_steps():
        return None
      try:
        if step is not None:
          return read(step)
      except CheckpointError:
        if step in self.steps():
          raise
    raise CheckpointError(
      f"the run deletes the checkpoints in {self._directory} faster than they can be read; "
      "let it keep more (run.keep_checkpoints), or read them when it has ended"
    )

  def damage(self, step: int) -> str:
    """What is wrong with the files of a checkpoint, in words; empty if every one of them is as it was written."""
    if step not in self._all_steps():
      raise self._no_such(step)
    try:
      faults = all_wrong(self._directory / str(step), step)
    except Exception as error:  # the other processes wait to hear from this one
      faults = [first_line(error)]
    found = "; ".join(dict.fromkeys(filter(None, from_each(some(faults)))))
    (self._verified.discard if found else self._verified.add)(step)
    return found

  def drop_after(self, step: int):
    """Deletes the checkpoints of all later steps, for good; of a run that went wrong there."""
    self._require_keep("delete")
    self.wait()
    self._verified = {verified for verified in self._verified if verified <= step}
    if jax.process_index() == 0:
      with _one_line(f"checkpoints after step {step} in {self._directory} cannot be deleted"):
        for later in [found for found in self._folders.complete() if found > step]:
          self._folders.delete(self._folders / later)

  def left_after(self, step: int) -> str | None:
    """Where the checkpoints of later steps are, if `leave_after` has been done for this one."""
    return first_says(lambda: str(self._folders.left_after(step) or "")) or None

  def leave_after(self, step: int):
    """Sets the checkpoints of all later steps aside, so that they can be saved again."""
    self._require_keep("rename")
    self.wait()
    self._verified = {verified for verified in self._verified if verified <= step}
    with _one_line(f"checkpoints after step {step} in {self._directory} cannot be renamed"):
      first_says(lambda: self._folders.leave_after(step))

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
    # It is read for random keys alone, and a foreign file there would be too.
    context.array.saving.array_metadata_store = None
    with context, self._reading(step):
      require(not wrong, wrong)
      arrays = ocp.load(self._directory / str(step), _targets(asked), checkpointable_name=ARRAYS)
    return jax.tree.unflatten(jax.tree.structure(abstract), [arrays[path] for path in asked])

  def _about(self, step: int) -> dict[str, Any]:
    """The metadata of a checkpoint, and the dtype and shape of its arrays. No array is read."""
    if step not in self.steps():
      raise self._no_such(step)
    place = self._directory / str(step)
    with self._reading(step):
      fault = wrong(place, ABOUT, unsealed(place, step)[ABOUT])
      require(not fault, fault)
      return json.loads((place / ABOUT).read_bytes())

  def _no_such(self, step: int) -> CheckpointError:
    return CheckpointError(f"{self._directory} has no checkpoint of step {step}; it has {self.steps()}")

  def _require_keep(self, action: str):
    if self._keep is None:
      raise CheckpointError(f"{self._directory} was opened to be read; give Checkpoints a keep to {action} there")

  def _all_steps(self) -> list[int]:
    """`steps` and those whose marker is lost."""
    return json.loads(from_each(json.dumps(self._folders.all()))[0])

  def _reading(self, step: int):
    others = [other for other in self.steps() if other != step]
    return _one_line(f"{self._directory}/{step} cannot be restored (the other steps there are {others})")

  def _finish(self, step: int, written: Any, about: bytes, inventory: Mapping[str, Any]):
    """In the background, once Orbax has copied the arrays."""
    try:
      with _one_line(f"the checkpoint of step {step} could not be written to {self._directory}"):
        written.result()
        place, final = self._folders.unfinished(step), self._directory / str(step)
        if jax.process_index() == 0:
          lacking = array_index.unreadable(place / ARRAYS, inventory)
          require(not lacking, lacking)
        seal(place, about, step)
        if jax.process_index() > 0:
          wait_for(lambda: (final / COMPLETE).exists() or not place.exists(), f"{final}/{COMPLETE}")
          wait_for((final / COMPLETE).exists, f"{final}/{COMPLETE}, which process 0 may have given up", seconds=60.0)
        else:
          self._folders.finish(step)
          self._saved()
    except BaseException:
      self._memory.clear()  # threads that did not fail may still read it
      if jax.process_index() == 0:
        with contextlib.suppress(OSError):  # the disk that failed may fail again; what failed first is to be told
          self._folders.clear()
      raise
    if jax.process_index() == 0:
      with _one_line(f"the oldest checkpoints in {self._directory} cannot be deleted"):
        for old in self._folders.complete()[: -self._keep]:
          if not (self._keep_every and old % self._keep_every == 0):
            self._folders.delete(self._folders / old)


def _writing() -> ocp.Context:
  context = ocp.Context()
  context.array.saving.enable_write_sharding_file = False  # restoring always says where to
  context.array.saving.min_slice_bytes_for_replica_parallel = 2**20  # else even a norm's scale is cut up by device
  context.array.saving.use_compression = False  # saves 8 % of the bytes, and takes the training's processors for it
  context.array.saving.ocdbt_target_data_file_size = 2**30  # so that several threads can hash
  return context


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
