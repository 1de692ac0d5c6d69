"""Plans a training step, or a step of sampling, for TPUs that are not there.

The real step of a config and stage is compiled ahead of time by the TPU compiler, which runs on any Linux machine, for
the real mesh; what its program needs is read off (`omniimage.planning`). Figures are for one chip, all its cores.

  hbm_bytes_per_chip   at most in use at one time; outputs that take the place of donated arguments count as arguments
  fits                 the compiler refuses programs that do not; then the total is all that the plan tells
  flops_per_chip       of all matrix products and kernels of the program, recomputation included
  model_flops_per_chip what the model needs: `System.step_flops`
  hbm_traffic_per_chip of cores and copies; what the network reads and writes by itself is not counted
  collective_bytes_per_chip  received, by kind; kinds that cross slices begin with "dcn-"
  synchronous_share    of the received bytes: those that the chip stands still for
  step_seconds         low, likely, high: `omniimage.planning.cost` says what each assumes
  mfu                  model FLOPs ÷ (seconds × peak of bfloat16): low belongs to high seconds, high to low ones

Assumed beyond that: rows are full; every step costs what the dearest of the decoder's chunk layouts costs; nobody waits
for data, hosts or checkpoints; all chips are equally fast. `sample` is one token of every row, written to caches as
long as a packed row and read in full, without guidance; one row for each part that the mesh divides rows into. It also
has hbm_traffic_needed_per_chip, the bytes of weights and caches that no program can do without. `paint` is one chunk of
every row's picture, in all steps of sampling. Of both, `times_an_image` says how often it is done for a picture.
"""

import dataclasses
import functools
import importlib.metadata
import importlib.util
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.experimental import topologies
from jax.tree_util import keystr

from omniimage.data.text import TextTokenizer
from omniimage.distributed.mesh import batch_ways, check_rows, make_mesh
from omniimage.distributed.xla_flags import compiler_options
from omniimage.errors import UserError
from omniimage.interop.start import complete
from omniimage.planning.chips import Chip, chip_of, chips_in
from omniimage.planning.cost import Cost, cost
from omniimage.planning.schedule import LEVELS
from omniimage.planning.table import line
from omniimage.settings import Settings, from_config, require
from omniimage.systems.system import Sampler, System
from omniimage.training import sharded

SAMPLE, PAINT = "sample", "paint"
SAMPLED = (SAMPLE, PAINT)  # beside the stages of training
MOST_ROWS = 4096  # for each part of the mesh; `fit` looks no further
MEMORY = ("arguments", "outputs", "temporaries", "total")
OPERATIONS = 30  # that a plan lists
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}  # of the compiler's messages


class DoesNotFit(UserError):
  """The compiler refused a program for its memory."""

  @property
  def needed(self) -> float | None:
    """Bytes a device, if the message tells."""
    found = re.search(r"required for .*?\(([\d.]+)([KMGT])\)", str(self))
    return float(found.group(1)) * UNITS[found.group(2)] if found else None


@dataclasses.dataclass(frozen=True)
class Plan:
  """`record` is what plan.json holds; `hlo` the program's text, empty where it does not fit."""

  record: dict[str, Any]
  hlo: str = ""


def plan(
  config: Mapping,
  topology: str,
  num_slices: int = 1,
  stage: str | None = None,
  fit: bool = False,
  report: Callable[[str], None] = lambda text: None,
) -> Plan:
  """The plan of a stage, by default the schedule's last, or of "sample" or "paint".

  With `fit`, of the largest batch that fits; every try is reported. Raises UserError before anything is compiled where
  config, stage, topology or installation cannot work.
  """
  planner = Planner.prepare(from_config(complete(config)), topology, num_slices, stage)
  return planner.largest(report) if fit else planner.plan(planner.rows)


@dataclasses.dataclass(frozen=True)
class Planner:
  """A stage on a mesh of devices that are not there."""

  settings: Settings
  stage: str
  topology: str
  num_slices: int
  mesh: jax.sharding.Mesh
  text_size: int

  @classmethod
  def prepare(cls, settings: Settings, topology: str, num_slices: int, stage: str | None) -> "Planner":
    chip_of(topology)  # names the chips there are
    require(num_slices > 0, f"num_slices={num_slices} must be positive")
    stage = stage or settings.schedule[-1]
    stages = (*settings.stages, *SAMPLED)
    require(stage in stages, f"stage={stage!r} is not in the config; there are {', '.join(stages)}")
    text_size = TextTokenizer.load(settings.data.vocabulary).size
    mesh = make_mesh(settings.mesh, devices(topology, num_slices))
    planner = cls(settings, stage, topology, num_slices, mesh, text_size)
    if stage not in SAMPLED:
      planner._system.check(stage)
      check_rows(planner.rows, settings.stages[stage].accumulate, mesh, stage)
    return planner

  @property
  def chip(self) -> Chip:
    return chip_of(self.topology)

  @property
  def chips(self) -> int:
    return chips_in(self.topology) * self.num_slices

  @property
  def unit(self) -> int:
    """Rows come in multiples of it."""
    return batch_ways(self.mesh) * (1 if self.stage in SAMPLED else self.settings.stages[self.stage].accumulate)

  @property
  def rows(self) -> int:
    """As the config has them."""
    return self.unit if self.stage in SAMPLED else self.settings.stages[self.stage].rows

  def plan(self, rows: int) -> Plan:
    record = self._known(rows)
    try:
      compiled, seconds = self._compile(rows)
    except DoesNotFit as error:
      memory = dict.fromkeys(MEMORY) | {"total": error.needed and error.needed * self.chip.devices}
      return Plan(record | {"hbm_bytes_per_chip": memory, "fits": False, "notes": [str(error)]})
    hlo, memory = program_text(compiled), self._memory(compiled.memory_analysis())
    record |= {"hbm_bytes_per_chip": memory, "fits": True, "compile_seconds": seconds}
    record |= self._priced(cost(hlo, self.chip), record["model_flops_per_chip"])
    if self.stage in SAMPLED:
      record["times_an_image"] = self._sampler(rows).times
    if self.stage == SAMPLE:
      params, written = self._step(rows)[1][:2]
      record["hbm_traffic_needed_per_chip"] = needed_bytes(params["prior"], written.caches) * self.chip.devices
    return Plan(record, hlo)

  def largest(self, report: Callable[[str], None]) -> Plan:
    """The plan of the most rows that fit."""
    plans = {}

    def fits(multiple: int) -> bool:
      plans[multiple] = tried = self.plan(multiple * self.unit)
      report(line(tried.record))
      return tried.record["fits"]

    most = most_that_fits(fits, self.rows // self.unit, MOST_ROWS)
    chosen = plans[most or min(plans)]
    tries = [{key: tried.record[key] for key in ("rows", "fits", "hbm_bytes_per_chip")} for tried in plans.values()]
    return Plan(chosen.record | {"tries": tries}, chosen.hlo)

  @functools.cached_property
  def _system(self) -> System:
    return sharded.system_for(self.settings, self.text_size, self.mesh)

  @functools.cached_property
  def _parameters(self) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(self._system.init, jax.random.key(0))))

  def _sampler(self, rows: int) -> Sampler:
    given = self.settings, self.text_size, self.mesh, rows
    if self.stage == PAINT:
      return sharded.painter_of(*given)
    return sharded.sampler_of(*given, self.settings.data.sequence_length)

  def _step(self, rows: int) -> tuple[Any, tuple]:
    """A jitted function and its abstract arguments."""
    if self.stage in SAMPLED:
      return sharded.abstract_sampler(self._sampler(rows), self.mesh)
    state = sharded.abstract_state(self._system, self.stage, self.mesh)
    step = sharded.jitted_step(self._system, self.stage, 0, self.mesh, state)
    return step, (state, sharded.abstract_batch(self._system, self.stage, rows, self.mesh))

  def _model_flops(self, rows: int) -> float:
    if self.stage in SAMPLED:
      return self._sampler(rows).flops
    stage = dataclasses.replace(self.settings.stages[self.stage], rows=rows)
    return self._system.step_flops(stage, self.settings.largest_bucket)  # as `abstract_batch`

  def _compile(self, rows: int) -> tuple[jax.stages.Compiled, float]:
    """The compiled program and the seconds that took. Raises DoesNotFit."""
    step, arguments = self._step(rows)
    with jax.set_mesh(self.mesh):
      lowered, started = step.lower(*arguments), time.monotonic()
      try:
        compiled = lowered.compile()
      except jax.errors.JaxRuntimeError as error:
        raise (does_not_fit(str(error)) or error) from None
    return compiled, time.monotonic() - started

  def _known(self, rows: int) -> dict[str, Any]:
    """What is known without compiling; everything else is None. The keys in the order of plan.json."""
    images = 0 if self.stage in SAMPLED else rows * self.settings.data.images_per_row
    return {
      "topology": self.topology,
      "num_slices": self.num_slices,
      "stage": self.stage,
      "chips": self.chips,
      "mesh": dict(self.mesh.shape),
      "rows": rows,
      "rows_per_chip": rows / self.chips,
      "images_per_chip": images / self.chips,
      "parameters": self._parameters,
      "hbm_bytes_per_chip": None,
      "hbm_capacity": self.chip.hbm_bytes * self.chip.devices,
      "fits": None,
      "flops_per_chip": None,
      "model_flops_per_chip": self._model_flops(rows) / self.chips,
      "hbm_traffic_per_chip": None,
      "collective_bytes_per_chip": None,
      "synchronous_share": None,
      "step_seconds": None,
      "mfu": None,
      "compile_seconds": None,
      "operations": None,
      "notes": None,
      "compiler_options": compiler_options(self.chip.name),
      "versions": {name: importlib.metadata.version(name) for name in ("jax", "libtpu")},
    }

  def _memory(self, analysis: Any) -> dict[str, float]:
    """Bytes a chip. The total is the most that is in use at one time, which is what the compiler holds against the
    memory there is; its own figure for temporaries adds up buffers that share a place."""
    arguments, total = analysis.argument_size_in_bytes, analysis.peak_memory_in_bytes
    outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    sizes = (arguments, outputs, total - arguments - outputs, total)
    return {name: size * self.chip.devices for name, size in zip(MEMORY, sizes)}

  def _priced(self, priced: Cost, model_flops: float) -> dict[str, Any]:
    """What the program's text tells. `priced` is for one device, of which a chip may have two."""
    devices, peak = self.chip.devices, self.chip.peak_flops * self.chip.devices
    seconds = priced.seconds
    return {
      "flops_per_chip": (priced.flops + priced.kernel_flops) * devices,
      "hbm_traffic_per_chip": priced.hbm_bytes * devices,
      "collective_bytes_per_chip": {kind: size * devices for kind, size in priced.collective_bytes.items()},
      "synchronous_share": priced.synchronous_share,
      "step_seconds": seconds,
      "mfu": {level: model_flops / (seconds[of] * peak) for level, of in zip(LEVELS, reversed(LEVELS))},
      "operations": [dataclasses.asdict(operation) for operation in priced.operations[:OPERATIONS]],
      "notes": list(priced.notes),
    }


def devices(topology: str, num_slices: int) -> list[Any]:
  """The devices of slices that are not there, as the TPU compiler knows them. Raises UserError."""
  if importlib.util.find_spec("libtpu") is None:
    raise UserError("planning needs the TPU compiler, which is not installed; pip install 'omniimage[tpu]' brings it")
  options = {"chip_config_name": "megacore"} if chip_of(topology).megacore else {}
  try:
    found = topologies.get_topology_desc(platform="tpu", topology_name=topology, num_slices=num_slices, **options)
  except jax.errors.JaxRuntimeError as error:
    reason = str(error).splitlines()[0].removeprefix("INVALID_ARGUMENT: ")
    raise UserError(f"topology={topology!r}: the TPU compiler refuses it: {reason}") from None
  return list(found.devices)


def needed_bytes(prior: Any, caches: Any) -> int:
  """What a device must read to write one code: its part of the layers, of the codes' head and of the caches."""
  leaves = {keystr(path, simple=True, separator="/"): x for path, x in jax.tree.leaves_with_path((prior, caches))}
  tied = not any(name.startswith("0/head/") for name in leaves)
  lookups = ("0/embed/text", "0/head/text", *(() if tied else ("0/embed/image",)))  # a row each, or not at all
  return sum(
    math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for name, x in leaves.items() if name not in lookups
  )


def program_text(compiled: jax.stages.Compiled) -> str:
  """The optimized HLO, with the tables that say which blocks of a mask a kernel visits; `as_text` leaves them out."""
  try:
    from jaxlib._hlo import HloPrintOptions  # not public
  except ImportError:
    return compiled.as_text()
  options = HloPrintOptions()
  options.print_large_constants = True
  return "\n\n".join(module.to_string(options) for module in compiled.runtime_executable().hlo_modules())


def most_that_fits(fits: Callable[[int], bool], start: int, limit: int) -> int:
  """The largest number up to `limit` that fits, by doubling and bisection; 0 if none does."""
  good, bad = 0, start
  while bad <= limit and fits(bad):
    good, bad = bad, 2 * bad
  bad = min(bad, limit + 1)
  while bad - good > 1:
    middle = (good + bad) // 2
    good, bad = (middle, bad) if fits(middle) else (good, middle)
  return good


def does_not_fit(message: str) -> DoesNotFit | None:
  """The sentence about device memory in an error of the compiler, if that is what it is about."""
  found = re.search(r"Ran out of memory on HBM.*?(?=\. |\.?\n|\.?$)", message)
  return DoesNotFit(found.group()) if found else None
