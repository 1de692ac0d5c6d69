"""Where a run computes, and what it keeps."""

import dataclasses
from typing import Annotated

from omniimage.ranges import Range, Ranged
from omniimage.settings.kinds import MOST_STEPS, Axis, Steps, StepsOrNone, require


@dataclasses.dataclass(frozen=True)
class MeshSettings(Ranged):
  """Devices along each axis; one of them may be -1: all the devices that remain."""

  data: Axis
  fsdp: Axis
  tensor: Axis
  sequence: Axis

  def __post_init__(self):
    super().__post_init__()
    sizes = dataclasses.astuple(self)
    require(sum(size == -1 for size in sizes) <= 1, f"mesh {sizes}: at most one axis may be -1")
    require(0 not in sizes, f"mesh {sizes}: axes are positive, or -1 for the rest")


@dataclasses.dataclass(frozen=True)
class RunSettings(Ranged):
  checkpoint_every: Steps
  keep_checkpoints: Annotated[int, Range(1, MOST_STEPS)]  # the last so many
  keep_every: StepsOrNone  # and those at multiples of so many steps; 0: none
  log_every: Steps
  sample_every: StepsOrNone  # between sample sheets; 0: only at the end of a stage
