"""Going on with a run under a changed config or an older version's state: what may change, and what may not."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import jax
from absl import logging

from omniimage.checkpoint import Checkpoints, by_path
from omniimage.errors import UserError
from omniimage.manifests import some
from omniimage.systems.system import System
from omniimage.training.state import stage_of, trained_parts
from omniimage.versions import KEY, dropped_paths, stored_paths


def check_config(
  system: System | type[System], stored: Mapping[str, Any], given: Mapping[str, Any], where: str, step: int
):
  """Raises UserError if the given config describes another model than the one stored at a step."""
  free = {path for name in untrained_parts(system, stored, step) for path in system.parts[name].settled}
  means = ("system", *system.identity)
  model = [text for path, text in _differences(stored, given) if _within(path, means) and path not in free]
  if model:
    raise UserError(
      f"{where} was trained with another model: {'; '.join(model[:3])}"
      f"{f' and {len(model) - 3} more' if len(model) > 3 else ''}. Use its config, or another workdir"
    )


def untrained_parts(system: System | type[System], stored: Mapping[str, Any], step: int) -> set[str]:
  """Parts that no update up to a step has moved, by the config stored with it."""
  stages = (stored["stages"][name] for name in stored["schedule"])
  return set(system.parts) - trained_parts(((stage["rates"], stage["steps"]) for stage in stages), step)


def log_changes(stored: Mapping[str, Any], given: Mapping[str, Any]):
  """Says how the given config differs from the stored one."""
  for _, text in _differences(stored, given):
    logging.warning("goes on with another config: %s", text)


def check_schedule(stored: Mapping[str, Any], given: Mapping[str, Any], step: int, where: str):
  """Raises UserError if a checkpoint's step lies in another stage now, or if its optimizer no longer fits the stage.

  A run whose schedule was over goes on with a stage that begins where it ended.
  """
  (was, _), (now, start) = _stage_of(stored, step), _stage_of(given, step)
  if was is None and now is not None and step != start:
    raise UserError(
      f"{where}: the run had ended at step {step}, and its optimizer with it; {now} cannot go on in the middle. "
      "Put another stage behind the last one instead, or take another workdir"
    )
  if was is None:
    return
  if was != now:
    changed = [text for path, text in _differences(stored, given) if re.fullmatch(r"schedule|stages\.\w+\.steps", path)]
    raise UserError(
      f"{where}: the schedule no longer fits step {step}, which is in {was} there and {_in_words(now)} here: "
      f"{'; '.join(changed)}. A stage that is under way needs more steps than it has made, and one that is finished "
      "cannot be made longer; set that back, put another stage behind the last one, or take another workdir"
    )
  there, here = _optimizer(stored, now), _optimizer(given, now)
  if there != here:
    raise UserError(
      f"{where} is in the middle of {now}, with {there} there and {here} here; that can change between stages only. "
      "Set it back, or take another workdir"
    )


def restore(
  checkpoints: Checkpoints, step: int, wanted: Any, init: Callable[[], Any], untrained: Collection[str] = ()
) -> Any:
  """The state of a checkpoint, of this version's format or an older one.

  Args:
    wanted: ShapeDtypeStructs with the shardings to restore to.
    init: makes a fresh state; what the checkpoint's format did not have yet is taken from it.
    untrained: parts of which a setting may have added or taken away arrays since.
  """
  asked = by_path(wanted)
  inventory, written_in = checkpoints.shapes(step), checkpoints.metadata(step).get(KEY, 0)
  there = stored_paths(asked, inventory, written_in)
  there = {path: old for path, old in there.items() if old in inventory or not _of_parts(path, untrained)}
  left = set(inventory) - set(there.values())
  reads_all = not (dropped_paths(inventory, written_in) or any(_of_parts(path, untrained) for path in left))
  read = checkpoints.restore if reads_all else checkpoints.restore_params
  found = read(step, {old: asked[path] for path, old in there.items()})
  arrays = {path: found[old] for path, old in there.items()}
  new = [path for path in asked if path not in there]
  if new:
    logging.warning("begins afresh, as the checkpoint of step %d does not have it: %s", step, some(new))
    places = {path: asked[path].sharding for path in new}
    arrays |= jax.jit(lambda: {path: by_path(init())[path] for path in new}, out_shardings=places)()
  return jax.tree.unflatten(jax.tree.structure(wanted), [arrays[path] for path in asked])


def _within(path: str, groups: Iterable[str]) -> bool:
  return any(f"{path}.".startswith(f"{group}.") for group in groups)


def _of_parts(path: str, parts: Collection[str]) -> bool:
  """Whether an array of the state is one of parts: "params/prior/norm/scale" is the prior's."""
  return path.count("/") > 0 and path.split("/")[1] in parts


def _stage_of(config: Mapping[str, Any], step: int) -> tuple[str | None, int]:
  return stage_of(config["schedule"], lambda name: config["stages"][name]["steps"], step)


def _in_words(stage: str | None) -> str:
  return "behind the end" if stage is None else f"in {stage}"


def _optimizer(config: Mapping[str, Any], stage: str) -> str:
  """What a stage's optimizer and averages are made for, in words."""
  moving = sorted(part for part, rate in config["stages"][stage]["rates"].items() if rate > 0)
  return f"{' and '.join(moving)} moved by {'Muon and AdamW' if config['optimizer']['muon_rms'] > 0 else 'AdamW'}"


def _differences(stored: Any, given: Any, path: str = "") -> Iterator[tuple[str, str]]:
  """(path, in words) of each value that differs, by dotted path."""
  if isinstance(stored, Mapping) and isinstance(given, Mapping):
    for key in (*stored, *(key for key in given if key not in stored)):
      inner = f"{path}.{key}" if path else key
      if key not in stored or key not in given:
        yield inner, f"{inner} is {_only(stored, key)} there and {_only(given, key)} here"
      else:
        yield from _differences(stored[key], given[key], inner)
  elif stored != given:
    yield path, f"{path} is {stored!r} there and {given!r} here"


def _only(config: Mapping[str, Any], key: str) -> str:
  return repr(config[key]) if key in config else "not set"
