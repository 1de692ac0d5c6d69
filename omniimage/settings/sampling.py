"""How a trained model draws."""

import dataclasses
from typing import Annotated

from omniimage.ranges import Range, Ranged
from omniimage.settings.kinds import MOST_CODES, MOST_PATCH_ROWS, Guidance, require

SOLVERS = ("euler", "heun", "multistep", "mean")  # of omniimage.sampling.solvers
AS_TRAINED = -1  # chunk_rows, chunk_columns: those of the painter's first trained layout that sampling can paint


@dataclasses.dataclass(frozen=True)
class SamplingSettings(Ranged):
  temperature: Annotated[float, Range(0, 1000)]  # of the codes; 0 takes the likeliest
  top_k: Annotated[int, Range(0, MOST_CODES)]  # 0: all
  top_p: Annotated[float, Range(1e-6, 1)]  # 1: all
  min_p: Annotated[float, Range(0, 1)]  # as a share of the likeliest id's probability; 0: all
  guidance: Guidance  # of the prior, against no text; 1: none
  diffusion_steps: Annotated[int, Range(1, 10_000)]  # a chunk
  solver: str  # of the diffusion: "heun" asks the network twice a step, the others once; "mean" tells how far
  time_shift: Annotated[float, Range(0.01, 100)]  # of the steps' times: above 1, more of them near the noise
  # Patch rows painted at a time; 0: the whole canvas at once; -1: as trained, until `Settings` has it.
  chunk_rows: Annotated[int, Range(AS_TRAINED, MOST_PATCH_ROWS)]
  chunk_columns: Annotated[int, Range(AS_TRAINED, MOST_PATCH_ROWS)]  # patch columns likewise; 0: the whole width
  token_guidance: Guidance  # of the painter, against no visual tokens; 1: none
  text_guidance: Guidance  # of the painter, against no text; 1: none
  guidance_from: Annotated[float, Range(0, 1)]  # times, 0 noise and 1 clean, between which the painter is guided
  guidance_until: Annotated[float, Range(0, 1)]

  def __post_init__(self):
    super().__post_init__()
    require(self.solver in SOLVERS, f"sampling.solver={self.solver!r}: {', '.join(SOLVERS)}")
    require(
      self.guidance_from < self.guidance_until,
      f"sampling.guidance_from={self.guidance_from} must be below guidance_until={self.guidance_until}",
    )

  @property
  def guides_always(self) -> bool:
    """Whether the painter's guidance is that of all times."""
    return (self.guidance_from, self.guidance_until) == (0, 1)
