"""What training, planning, evaluation and the commands are generic over: a system of models that is trained as one.

A system names its parts, makes their parameters, gives the losses of a stage and draws. A new one is a subclass of
`System` in a file of its own and one row of `omniimage.systems.SYSTEMS`.

Axes: B rows of a batch.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from omniimage.data.batches import Batch
from omniimage.data.text import TextTokenizer
from omniimage.distributed.sharding import Rules
from omniimage.distributed.spread import Spread
from omniimage.interop import lpips_weights
from omniimage.models.execution import GatherParams
from omniimage.models.kernels import PLAIN, Kernels
from omniimage.models.lpips import Lpips
from omniimage.sampling.drawing import Draws
from omniimage.settings import Settings, StageSettings, require, require_key
from omniimage.size import Size
from omniimage.systems import perceptual
from omniimage.vocabulary import Vocabulary

Params = dict[str, Any]  # by part
Totals = Mapping[str, Array]  # by term, what it is divided by: sums over the whole global batch, never zero
Metrics = dict[str, Array]

ABILITIES = {  # what suites and commands may ask of a system beyond drawing prompts, and how that is said
  "codes": "makes codes of images, and images of codes",
  "chunks": "paints chunk by chunk",
  "turns": "answers conversations",
}
NOTHING = 1e-6  # divides a term that nothing in the batch has a weight for


@dataclass(frozen=True)
class Part:
  """A tree of parameters that a stage moves or leaves alone.

  Attributes:
    rules: how its parameters lie on the mesh, `omniimage.distributed.sharding`.
    teachers: the terms of the loss that have a gradient for it.
    settled: settings, dotted, that may change until the part has been trained, and not afterwards.
  """

  rules: Rules
  teachers: tuple[str, ...]
  settled: tuple[str, ...] = ()


class Start(Protocol):
  """A trained model that a part's parameters begin as, checked when it is made."""

  def load(self, fresh: Params) -> Params:
    """Its parameters in place of fresh ones, which are used up, on the same devices."""


@dataclass(frozen=True)
class Sampler:
  """One token of every row, or one chunk, as it is planned.

  Attributes:
    step: of the arguments. The first are parameters, the second is what has been written; that is donated, and comes
      back first.
    arguments: abstract.
    shardings: of each.
    flops: that all rows together need.
    times: how often it is done for an image.
  """

  step: Callable
  arguments: tuple
  shardings: tuple
  flops: float
  times: int


class GathersByHand(GatherParams, Protocol):
  """Gathers parameters by hand, and runs functions on each device's own rows (`omniimage.distributed.fsdp`)."""

  def gradients(self, grad_fn: Callable) -> Callable:
    """The same losses and gradients as `grad_fn`, over all rows."""

  def sums(self, fn: Callable) -> Callable:
    """The same sums as `fn`, over all rows."""


class System(ABC):
  """Pure functions of parameters. What adds up over rows may be asked for some of them at a time."""

  parts: ClassVar[Mapping[str, Part]]  # in the order in which they are usually trained
  terms: ClassVar[tuple[str, ...]]  # of the loss, each with a weight
  modifiers: ClassVar[tuple[str, ...]] = ()  # other names that a stage's weights may have
  identity: ClassVar[tuple[str, ...]]  # settings, dotted, or groups of them, that say what the parameters mean
  abilities: ClassVar[frozenset[str]] = frozenset()  # of ABILITIES
  encoder: ClassVar[str] = ""  # the part that makes codes of images; none: codes cannot be stored

  def __init__(
    self,
    settings: Settings,
    text_size: int,
    kernels: Kernels = PLAIN,
    gather_params: GathersByHand | None = None,
  ):
    """With a text vocabulary of `text_size` ids; the rest is how a mesh runs it."""
    self.settings, self.text_size = settings, text_size
    self.kernels, self.gather_params = kernels, gather_params

  @property
  @abstractmethod
  def vocabulary(self) -> Vocabulary:
    """Of the sequences that it reads."""

  @abstractmethod
  def init(self, key: Array) -> Params:
    """Fresh parameters of every part."""

  def starts(self) -> Mapping[str, Start]:
    """By part, what a run begins with in place of fresh parameters. UserError where that cannot be."""
    return {}

  @abstractmethod
  def empty_batch(self, rows: int, size: Size, coded: bool) -> Mapping[str, np.ndarray]:
    """A batch of padding, of a bucket: every field, its shape and type. A coded one holds codes and no images."""

  @abstractmethod
  def sums(self, batch: Batch) -> Totals:
    """By term, the weight that the rows of a batch have for it; may be zero."""

  @abstractmethod
  def losses(
    self, stage: StageSettings, params: Params, batch: Batch, keys: Array, shared: Any, totals: Totals
  ) -> tuple[Array, Metrics]:
    """The loss, and each term that has a weight, unweighted. Those of microbatches add up to those of the whole.

    Args:
      keys: (B,) random keys, one a row, so that a row's noise does not depend on which rows are beside it.
      shared: of `shared_draws`.
      totals: of the whole global batch.
    """

  @functools.cached_property
  def lpips(self) -> Lpips:
    """What perceptual terms compare pictures by, with the weights that the settings name; no part of the parameters.
    UserError where they are not there."""
    return lpips_weights.load(self.settings.lpips)

  def check_files(self):
    """UserError where a loss of the schedule needs what is not there, before anything is compiled."""
    if any(perceptual.compares(self.settings.stages[name]) for name in self.settings.schedule):
      _ = self.lpips

  def perceptual_flops(self, stage: StageSettings, size: Size) -> int:
    """FLOPs of a stage's perceptual terms in an update on a batch of a bucket."""
    return perceptual.perceptual_flops(self.lpips, self.settings, stage, size) if perceptual.compares(stage) else 0

  def needs_pixels(self, stage: StageSettings) -> bool:
    """Whether a stage's losses look at the images beyond their codes; where they do not, stored codes will do."""
    return True

  def encode(self, params: Params, images: Array) -> Array:
    """Images (..., H, W, 3) uint8 → codes (..., h, w) int32, with the parameters of `encoder` as they are stored."""
    raise NotImplementedError(f"{type(self).__name__} makes no codes")

  def shared_draws(self, key: Array) -> Any:
    """What is drawn once for all rows of an update."""
    return ()

  def watches(self, stage: StageSettings) -> tuple[str, ...]:
    """The parts whose change by an update is measured in this stage, by `observed`."""
    return ()

  def observed(self, old: Params, new: Params, batch: Batch, totals: Totals) -> Metrics:
    """What an update did to the watched parts; adds up over rows."""
    return {}

  def step_flops(self, stage: StageSettings, size: Size) -> float:
    """FLOPs that an update on a batch of a bucket needs, whatever a program does."""
    return 0.0

  def generator(self, params: Params, text_tokenizer: TextTokenizer, spread: Spread | None = None) -> Draws | None:
    """What draws with parameters as stored, over the devices of `spread` or on the first; `load` gives it others. None
    if the system cannot draw."""
    return None

  def columns(
    self, generator: Draws, trained: Collection[str], prompts: Sequence[str], images: np.ndarray, seed: int
  ) -> dict[str, Array]:
    """Images (n, H, W, 3) by name, of a sample sheet: what the parts that are trained can show of n examples."""
    return {}

  def sampler(self, mesh: Mesh, rows: int, length: int) -> Sampler | None:
    """One token of every row, written to caches of `length` places; None if the system writes no tokens."""
    return None

  def painter(self, mesh: Mesh, rows: int) -> Sampler | None:
    """One chunk of every row's image, in all steps of sampling; None if the system does not paint in chunks."""
    return None

  def reads_codes(self, stage: StageSettings) -> bool:
    """Whether a stage's batches hold codes, made once, and no images."""
    return bool(self.settings.data.codes) and not self.needs_pixels(stage)

  def totals(self, batch: Batch) -> Totals:
    """What each term is divided by."""
    return {name: jnp.maximum(value.astype(jnp.float32), NOTHING) for name, value in self.sums(batch).items()}

  def teaches(self, stage: StageSettings, totals: Totals) -> Array:
    """Whether a batch of these totals has a weight for any term of the stage, bool."""
    return functools.reduce(jnp.logical_or, (totals[name] > NOTHING for name in self.terms if stage.weight(name)))

  def check(self, stage: str):
    """SettingsError if a stage cannot be trained."""
    row, place = self.settings.stages[stage], f"config.stages.{stage}"
    for name in row.rates:
      require_key(name, self.parts, f"{place}.rates", listed="there are")
    for name in row.weights:
      require_key(name, (*self.terms, *self.modifiers), f"{place}.weights", listed="there are")
    require(
      any(row.weight(term) for term in self.terms),
      f"{place}: a stage needs a loss weight above zero, of {', '.join(self.terms)}",
    )
    perceptual.check(row, place)
    for name in row.moves:
      teachers = self.parts[name].teachers
      require(
        any(map(row.weight, teachers)),
        f"{place}: rates.{name}={row.rates[name]}, but nothing teaches the {name}: give a weight to "
        f"{' or '.join(teachers)}",
      )


def rules_of(system: System | type[System]) -> dict[str, Rules]:
  """How each of its parts lies on a mesh."""
  return {name: part.rules for name, part in system.parts.items()}
