"""What a suite of `launch.evaluate` must answer, and what suites share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from omniimage.data.sources.source import Source
from omniimage.evaluation.markup import Picture
from omniimage.sampling.drawing import Draws

# The kinds of pictures, in the words of the page: titles of columns.
KINDS = {
  "painted": "sampled tokens, painted",
  "rendering": "sampled tokens, rendered",
  "true_tokens": "true tokens, painted",
  "reconstruction": "true tokens, rendered",
}


@dataclass(frozen=True, eq=False)
class Pictures:
  """What a suite shows of its n examples, beside what other suites show of the same ones.

  Attributes:
    captions: n of them.
    true: (n, H, W, 3) uint8, what was asked for.
    columns: n pictures each, by their title. Of columns with one title, the first suite's is shown.
    wrong: indices of examples that were answered wrongly; None where nothing grades them.
  """

  captions: tuple[str, ...]
  true: np.ndarray
  columns: Mapping[str, Sequence[Picture]] = field(default_factory=dict)
  wrong: Sequence[int] | None = None


class Result(Protocol):
  """What a suite has found."""

  def figures(self) -> dict:
    """As in report.json."""

  def pictures(self) -> Pictures | None:
    """For the gallery; None if there is nothing to look at."""


class Suite(ABC):
  """A row of the table. What it says of figures it says of those of earlier reports too, which may hold less."""

  needs: ClassVar[str] = ""  # what the system must be able to, of `omniimage.systems.system.ABILITIES`; "": draw
  samples: ClassVar[bool] = True  # whether its figures depend on `settings.sampling`
  behind: ClassVar[tuple[str, ...]] = ()  # suites that show its pictures, or better ones, where they ran as well

  def misfit(self, source: Source, learnt: str) -> str:
    """Why it cannot measure a run that has learnt this, as in "{name} grades texts, and …"; empty if it can.

    Args:
      source: the test split; its tasks say what grades them.
      learnt: the name of the source.
    """
    return ""

  @abstractmethod
  def run(self, generator: Draws, number: int, seed: int, batch: int, earlier: Mapping[str, Result]) -> Result:
    """Measures `number` held-out prompts or images, fewer if there are fewer, in batches of at most `batch`.

    Args:
      seed: of the captions' words and the noise.
      earlier: results of the suites above it that ran, by name, of the same number and seed.
    """

  @abstractmethod
  def section(self, figures: Mapping) -> str:
    """HTML below the suite's heading. KeyError, TypeError or ValueError where these are no figures of it."""

  @abstractmethod
  def lines(self, figures: Mapping) -> list[str]:
    """The figures for a terminal: the name in 26 columns, or two spaces before what says more."""


def percent(share: float) -> str:
  return f"{100 * share:.1f} %"


def counted(used: int, figures: Mapping, what: str = "held-out prompts") -> str:
  """How many prompts or images were used, and that no more were found where more were asked for."""
  if "asked" not in figures:  # reports of before, in which some may repeat
    return f"{used} {what}"
  more = f"; {figures['asked']} were asked for, and the test split has no more" if used < figures["asked"] else ""
  return f"{used} {what}, all different{more}"
