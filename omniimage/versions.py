"""What has changed in what a run keeps, so that a run of an older version can still be read.

config.json and every checkpoint say which format they are in. `CHANGES[n]` leads from format n to n + 1. To add,
rename or drop a setting, or an array of the training state: add a row here, and a config.json of the format before it
to tests/old_runs, whose test then reads it. What can no longer be read has no row: see `refuse_unsealed`.
"""

import copy
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omniimage.buckets import is_remote
from omniimage.errors import UserError

KEY = "format"  # beside the settings of config.json and the metadata of a checkpoint; no setting


@dataclass(frozen=True)
class Change:
  """From one format to the next. A path stands for all that lies below it.

  Attributes:
    settings: new settings, dotted, with the values that do what was done before. `*` is every key of a group or item
      of a list, and `source[scenes]` a group `source` only where its name is "scenes".
    renamed_settings: dotted, old to new, with as many `*` on both sides.
    dropped_settings: dotted, that are no settings any more.
    arrays: new arrays of the training state, as "health"; a run begins them afresh.
    renamed_arrays: as "params/decoder", old to new.
    dropped_arrays: regular expressions of whole paths that are read no more.
    unreadable: how what was trained before differs so that no checkpoint of it can be read, its config alone; empty
      where it can.
  """

  settings: Mapping[str, Any] = field(default_factory=dict)
  renamed_settings: Mapping[str, str] = field(default_factory=dict)
  dropped_settings: tuple[str, ...] = ()
  arrays: tuple[str, ...] = ()
  renamed_arrays: Mapping[str, str] = field(default_factory=dict)
  dropped_arrays: tuple[str, ...] = ()
  unreadable: str = ""


CHANGES = (
  # Format 0 is all that was written before there were formats: any of these may be there already.
  Change(
    settings={
      "gather_params": "compiler",
      "prior.text_rows": 0,
      "optimizer.muon_rms": 0.0,
      "faults.spike_score": 10.0,
      "faults.skip_spikes": False,
      "faults.roll_back_after": 10,
      "run.keep_every": 0,
      "data.max_bad_records": 0.05,
    },
    dropped_settings=("fuse_gathers",),
    arrays=("health",),
    dropped_arrays=(r"opt_state/\w+/3/count",),  # Optax's own count of the learning rate's schedule
  ),
  Change(
    settings={"system": "omni"},
    renamed_settings={f"stages.*.{part}_rate": f"stages.*.rates.{part}" for part in ("tokenizer", "prior", "decoder")},
  ),
  Change(
    settings={
      "data.aspect_ratios": ["1:1"],
      "data.workers": 0,
      "data.codes": "",
      "data.source[scenes].tasks": ["text_to_image"],
      "prior.gemma": False,
      "prior.norm_epsilon": 1e-6,
      "prior.rope_scaling": (),
      "prior.local_layers": (),
      "prior.init": "",
    }
  ),
  Change(unreadable="was trained on sequences in which no token begins a turn, and has other ids"),
  Change(settings={"sampling.min_p": 0.0, "prior.input_images": "codes"}),
  Change(
    settings={
      f"data.{source}[scenes].{name}": value
      for source in ("source", "source[mixture].sources.*")
      for name, value in (("jitter", 0), ("unseen", ()), ("validation", 0.0))
    }
    | {"stages.*.source_weights": ()}
  ),
  Change(settings={"prior.grid_embedding": False}),
  Change(
    settings={
      "sampling.solver": "euler",
      "sampling.time_shift": 1.0,
      "sampling.guidance_from": 0.0,
      "sampling.guidance_until": 1.0,
    }
  ),
  Change(
    settings={
      "decoder.chunk_columns": (),
      "decoder.reads_gap": False,
      "faults.end_hanging_after": 0,
      "lpips": "models/lpips/alexnet.safetensors",
      "sampling.chunk_columns": -1,
      "stages.*.few_steps": 0.0,
      "stages.*.corrupted_codes": 0.0,
    }
  ),
)
FORMAT = len(CHANGES)


def stamped(kept: Mapping[str, Any]) -> dict[str, Any]:
  """What is kept, with the format it is in."""
  return {KEY: FORMAT, **kept}


def format_of(kept: Mapping[str, Any], where: str) -> int:
  """The format of what was kept. UserError if a newer version than this one has written it."""
  found = kept.get(KEY, 0)
  if not isinstance(found, int) or not 0 <= found <= FORMAT:
    raise UserError(
      f"{where} is in format {found!r}, and this version of omniimage reads formats 0 to {FORMAT}; "
      "use the version that wrote it, or a later one"
    )
  return found


def checkpoint_format(about: Mapping[str, Any], where: str) -> int:
  """The format of a checkpoint, by what it says of itself. UserError if this version cannot read it."""
  written_in = format_of(about, where)
  for change in CHANGES[written_in:]:
    if change.unreadable:
      raise UserError(
        f"{where}, of format {written_in}, {change.unreadable}: this version of omniimage, of format {FORMAT}, cannot "
        "use it; sample it with the version that wrote it, or train anew, in another workdir or with --begin_anew"
      )
  return written_in


def present_config(config: Mapping[str, Any], written_in: int) -> dict[str, Any]:
  """A config of some format as one of this version, which says no format."""
  config = copy.deepcopy({key: value for key, value in config.items() if key != KEY})
  for change in CHANGES[written_in:]:
    for old, new in change.renamed_settings.items():
      for (group, name), (other, new_name) in zip(_places(config, old), _places(config, new)):
        if name in group:
          other[new_name] = group.pop(name)
    for path in change.dropped_settings:
      for group, name in _places(config, path):
        group.pop(name, None)
    for path, value in change.settings.items():
      for group, name in _places(config, path):
        group.setdefault(name, copy.deepcopy(value))
  return config


def stored_paths(paths: Iterable[str], there: Collection[str], written_in: int) -> dict[str, str]:
  """Where arrays of the training state lie in a checkpoint of some format: path now → path there.

  Arrays that the format did not have yet are left out.

  Args:
    paths: of all that is wanted: "params/prior/norm/scale".
    there: of all that the checkpoint holds.
  """
  found = {}
  for path in paths:
    old = path
    for change in reversed(CHANGES[written_in:]):
      if any(_below(old, new) for new in change.arrays) and old not in there:
        break
      renamed = [(before, now) for before, now in change.renamed_arrays.items() if _below(old, now)]
      if renamed:
        ((before, now),) = renamed
        old = before + old.removeprefix(now)
    else:
      found[path] = old
  return found


def dropped_paths(there: Collection[str], written_in: int) -> set[str]:
  """Those of a checkpoint's arrays that this version reads no more."""
  patterns = [pattern for change in CHANGES[written_in:] for pattern in change.dropped_arrays]
  return {path for path in there if any(re.fullmatch(pattern, path) for pattern in patterns)}


def refuse_unsealed(checkpoints: str | os.PathLike):
  """UserError if a folder of checkpoints is of the first layout: without complete.json, its metadata by Orbax."""
  if is_remote(checkpoints):  # where none was ever written
    return
  for found in Path(checkpoints).glob("[0-9]*/about/_METADATA"):
    place = found.parents[1]
    if not (place / "complete.json").exists():
      raise UserError(
        f"{place} was written before checkpoints were sealed, and this version of omniimage cannot read it; "
        "use the version that wrote it, or take another workdir"
      )


def _places(config: dict[str, Any], path: str) -> list[tuple[dict[str, Any], str]]:
  """(group, name) of each setting that a dotted path means, set or not. Groups that are not there are made."""
  *groups, name = path.split(".")
  places = [config]
  for key in groups:
    key, _, wanted = key.rstrip("]").partition("[")
    below = [_values(place) if key == "*" else [place.setdefault(key, {})] for place in places]
    places = [group for found in below for group in found if isinstance(group, (dict, list))]
    places = [group for group in places if not wanted or group.get("name") == wanted]
  return [(place, name) for place in places]


def _values(group: dict[str, Any] | list[Any]) -> list[Any]:
  return list(group.values() if isinstance(group, dict) else group)


def _below(path: str, top: str) -> bool:
  return path == top or path.startswith(f"{top}/")
