"""Stages, and what updates the parameters in them."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated

from omniimage.ranges import Range, Ranged
from omniimage.settings.kinds import Decay, Rate, Share, Steps, StepsOrNone, Weight, divides, require


@dataclasses.dataclass(frozen=True)
class StageSettings(Ranged):
  """A stage: loss weights, which parts move and how fast, on which data, and for how long. Nothing else distinguishes
  stages.

  What names there are, of parts and of terms, is for the system to say: `omniimage.systems`.
  """

  weights: Mapping[str, Weight]  # of the loss's terms, and of what goes with them; what has none is not traced
  rates: Mapping[str, Rate]  # peak learning rate of each part; 0: the part does not move
  steps: StepsOrNone
  rows: Annotated[int, Range(1, 2**20)]  # packed rows in a global batch
  accumulate: Annotated[int, Range(1, 2**20)]  # microbatches a step is split into
  warmup_steps: StepsOrNone
  sampled_codes: Share  # share of images painted from codes drawn from the prior's own logits
  # How often each source of a mixture is drawn in this stage; (): as `data.source.weights` says.
  source_weights: tuple[Annotated[float, Range(1e-6, 1e6)], ...] = ()
  # Share of the images whose chunks the painter learns to reach in steps of any length; the others teach it short ones.
  few_steps: Share = 0.0
  # Share of the codes that images are painted from, drawn or true, that are any others of the codebook.
  corrupted_codes: Share = 0.0

  def __post_init__(self):
    super().__post_init__()
    require(self.warmup_steps <= max(self.steps, 1), f"warmup_steps={self.warmup_steps} exceeds steps={self.steps}")
    divides(self.accumulate, self.rows, "accumulate", "rows")
    require(len(self.moves) > 0, f"a stage needs a part that moves: set one of the rates of {', '.join(self.rates)}")

  def weight(self, name: str) -> float:
    return self.weights.get(name, 0.0)

  @property
  def moves(self) -> tuple[str, ...]:
    return tuple(part for part, rate in self.rates.items() if rate > 0)


@dataclasses.dataclass(frozen=True)
class OptimizerSettings(Ranged):
  """Muon and AdamW, `omniimage.training.optimizer`."""

  # Root mean square of the layers' matrices' updates, in learning rates; 0: AdamW moves them too.
  muon_rms: Annotated[float, Range(0, 100)]
  b1: Decay
  b2: Decay
  weight_decay: Annotated[float, Range(0, 100)]
  clip_norm: Annotated[float, Range(1e-6, 1e12)]
  final_rate: Share  # learning rate at the end of a stage, as a share of its peak
  ema_decay: Decay


@dataclasses.dataclass(frozen=True)
class FaultSettings(Ranged):
  """What happens to updates that must not count, `omniimage.training.health`, and to processes that hang,
  `omniimage.training.hangs`."""

  spike_score: Annotated[float, Range(1e-3, 1e6)]  # deviations above the last losses' median that make a spike
  skip_spikes: bool  # spikes are logged; with this their updates change nothing
  roll_back_after: Steps  # updates in a row that changed nothing: back to the last checkpoint before them
  # Seconds that a process may hang before the run ends with exit code 75; 0: it is named, and may hang.
  end_hanging_after: Annotated[int, Range(0, 7 * 86400)]
