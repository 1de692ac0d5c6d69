"""What a compiled TPU program costs: FLOPs, bytes, and the seconds that its schedule takes.

The instructions of each computation are run in the compiler's order on five resources: the core, which does one thing
at a time, and beside it the network of the slice, the network between slices, copies to and from HBM, and those to and
from the host. An asynchronous start queues its transfer on a resource and costs the core nothing; its done waits for
it; a synchronous collective holds up the core. Loops multiply their body. Every operation has three durations:

  low     FLOPs at peak or HBM bytes at full bandwidth, whichever takes longer
  likely  the compiler's estimate for matrix products; memory-bound work, whose estimates run high, at its HBM bytes or
          a vector register a cycle, at most the estimate
  high    the compiler's estimate

Assumed, for nothing in the text prices them: collectives take their received bytes over `Chip.ici_bandwidth` or
`Chip.dcn_bandwidth`, without latency; Pallas kernels reach KERNEL_EFFICIENCY of the peak; what is kept in the host's
memory goes there and back at HOST_BANDWIDTH.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from omniimage.planning.chips import Chip
from omniimage.planning.flops import KERNELS, KernelFlops, matmul_flops
from omniimage.planning.hlo import HOST, Computation, Instruction, Module, parse
from omniimage.planning.paths import UNNAMED, module_path
from omniimage.planning.schedule import LEVELS, LIKELY, Ledger, Schedule
from omniimage.planning.traffic import COLLECTIVES, across_slices, collective, copied_bytes, hbm_bytes, rendezvous

KERNEL_EFFICIENCY = 0.5  # of the peak, for Pallas kernels
HOST_BANDWIDTH = 1.6e10  # bytes/s between a device and its host: PCIe 3.0 × 16
VECTOR_ELEMENTS = 1024  # of one vector register, 8 × 128
NOTEWORTHY = 2**16  # bytes of HBM from which an operation without the compiler's estimate is noted

FREE = (
  *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id", "replica-id"),
  *("opt-barrier", "iota", "domain", "add-dependency"),
)
FREE_TARGETS = ("AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound", "Sharding", "SliceId", "ZeroCrop")
PALLAS = "tpu_custom_call"
ROLES = {"AsyncCollectiveStart": "Start", "AsyncCollectiveDone": "Done"}
NESTED = ("while", "call", "conditional")


@dataclasses.dataclass(frozen=True)
class Operation:
  """Everything of one kind at one place of the model."""

  path: str  # of the Flax module
  kind: str  # forward, backward, recomputed, other; a synchronous collective's kind; or what was waited for
  seconds: float  # likely, in the whole program
  share: float  # of the likely time
  count: int  # instructions run


@dataclasses.dataclass(frozen=True)
class Cost:
  """One run of a program on one device."""

  flops: float  # of matrix products, without kernels
  kernel_flops: float  # of Pallas kernels
  hbm_bytes: float
  collective_bytes: dict[str, float]  # received, by kind; kinds that cross slices begin with "dcn-"
  synchronous_bytes: dict[str, float]  # of these, what the core stands still for
  seconds: dict[str, float]  # low, likely, high
  operations: tuple[Operation, ...]  # dearest first; their seconds add up to the likely time
  notes: tuple[str, ...]  # what had no price, or an assumed one

  @property
  def synchronous_share(self) -> float:
    """The share of the received bytes that nothing hides."""
    return sum(self.synchronous_bytes.values()) / (sum(self.collective_bytes.values()) or 1)


def cost(hlo_text: str, chip: Chip, kernels: Sequence[KernelFlops] = KERNELS) -> Cost:
  """Prices a program from its HLO text. `kernels` tell the FLOPs of Pallas calls; the first that answers counts."""
  module, ledger = parse(hlo_text), Ledger()
  seconds = _Reader(module, chip, kernels, ledger).run(module.computations[module.entry], 1)
  rows = sorted(ledger.rows.items(), key=lambda row: -row[1][0])
  return Cost(
    flops=ledger.flops,
    kernel_flops=ledger.kernel_flops,
    hbm_bytes=ledger.hbm_bytes,
    collective_bytes=dict(ledger.received),
    synchronous_bytes=dict(ledger.synchronous),
    seconds=dict(zip(LEVELS, seconds.tolist())),
    operations=tuple(Operation(*key, s, s / float(seconds[LIKELY]), n) for key, (s, n) in rows if s > 0),
    notes=tuple(f"{count} × {text}" for text, count in ledger.notes.most_common() if count),
  )


Place = tuple[Computation, Instruction]


@dataclasses.dataclass(frozen=True)
class _Contents:
  """What a fusion or an asynchronous call holds, nested ones included."""

  flops: float  # of matrix products
  collectives: tuple[Place, ...]
  kernels: tuple[Place, ...]  # Pallas calls
  role: str  # Start or Done of an asynchronous collective fusion, or empty
  op_name: str  # of the matrix product, else of the first instruction that has one


class _Reader:
  def __init__(self, module: Module, chip: Chip, kernels: Sequence[KernelFlops], ledger: Ledger):
    self.module, self.chip, self.kernels, self.ledger = module, chip, kernels, ledger
    self.known: dict[str, _Contents] = {}

  def run(self, computation: Computation, times: int) -> np.ndarray:
    """Books a computation that runs `times` times; the seconds of one run. Zero times prices it without booking."""
    schedule = Schedule()
    for instruction in computation:
      if instruction.opcode not in FREE:
        self._step(computation, instruction, schedule, times)
    for resource, seconds in schedule.busy.items():  # transfers that nothing here waits for still keep their resource
      self.ledger.row(UNNAMED, f"{resource} wait", schedule.until(np.full(len(LEVELS), seconds)), times)
    return schedule.now

  def _step(self, computation: Computation, instruction: Instruction, schedule: Schedule, times: int):
    opcode, contents = instruction.opcode, self._contents(instruction)
    if opcode in NESTED:
      schedule.work(self._nested(computation, instruction, times))
    elif opcode in ("send", "recv", "send-done", "recv-done"):
      self._between_slices(computation, instruction, schedule, times)
    elif opcode.endswith("-start"):
      self._start(computation, instruction, schedule, times)
    elif opcode.endswith("-update"):
      self._update(computation, instruction, schedule, times)
    elif opcode.endswith("-done") or contents.role == "Done":
      self._done(computation, instruction, schedule, times)
    elif contents.role == "Start":
      self._collectives(instruction, contents.collectives, schedule, times, asynchronous=True)
    elif opcode in COLLECTIVES:
      self._collectives(instruction, ((computation, instruction),), schedule, times, asynchronous=False)
    else:
      if contents.collectives and not self._carries(instruction):
        self._collectives(instruction, contents.collectives, schedule, times, asynchronous=False)
      self._compute(computation, instruction, schedule, times)

  def _nested(self, computation: Computation, instruction: Instruction, times: int) -> np.ndarray:
    if instruction.opcode == "while":
      trips = self.module.trips(computation, instruction)
      if trips is None:
        self.ledger.notes[f"loop {instruction.name} whose trips the text does not tell, run once"] += times
        trips = 1
      return trips * self.run(self.module.computations[instruction.computation("body")], times * trips)
    branches = [self.module.called(instruction)]
    if instruction.opcode == "conditional":
      self.ledger.notes["conditional, its dearest branch taken"] += times
      branches = [self.module.computations[name] for name in instruction.branches]
    dearest = max(branches, key=lambda branch: self.run(branch, 0)[LIKELY]) if len(branches) > 1 else branches[0]
    return self.run(dearest, times)

  def _contents(self, instruction: Instruction) -> _Contents:
    asynchronous = (
      instruction.opcode.endswith("-start") and instruction.opcode.removesuffix("-start") not in COLLECTIVES
    )
    called = self.module.called(instruction) if instruction.opcode in ("fusion", "call") or asynchronous else None
    if called is None:
      return _Contents(0.0, (), (), "", "")
    if called.name not in self.known:
      self.known[called.name] = self._look_inside(called)
    return self.known[called.name]

  def _look_inside(self, computation: Computation) -> _Contents:
    flops, collectives, kernels, role, product, first = 0.0, (), (), "", "", ""
    for instruction in computation:
      inner, place = self._contents(instruction), ((computation, instruction),)
      own = matmul_flops(computation, instruction) + inner.flops
      flops += own
      collectives += inner.collectives + place * (instruction.opcode.removesuffix("-start") in COLLECTIVES)
      kernels += inner.kernels + place * (instruction.target == PALLAS)
      role = role or inner.role or ROLES.get(instruction.target, "")
      op_name = instruction.op_name or inner.op_name
      product, first = product or (op_name if own or kernels else ""), first or op_name
    return _Contents(flops, collectives, kernels, role, product or first)

  def _path(self, instruction: Instruction) -> tuple[str, str]:
    return module_path(instruction.op_name or self._contents(instruction).op_name)

  # Transfers

  def _collectives(self, instruction, collectives, schedule: Schedule, times: int, asynchronous: bool):
    """Books collectives that begin here: one of its own, or those that a fusion or a wrapper holds."""
    seconds, kinds, (path, _) = 0.0, [], self._path(instruction)
    for computation, inner in collectives:
      kind, received = collective(computation, inner, self.module.partitions)
      self.ledger.received[kind] += received * times
      self.ledger.synchronous[kind] += 0.0 if asynchronous else received * times
      seconds += received / self.chip.ici_bandwidth
      kinds.append(kind)
    if asynchronous:
      schedule.start(instruction.name, "network", seconds, kinds[0], path)
    else:
      self.ledger.row(path, kinds[0], schedule.hold("network", seconds), times)

  def _start(self, computation: Computation, instruction: Instruction, schedule: Schedule, times: int):
    if instruction.operands:
      self._begin(computation, instruction, schedule, times)

  def _update(self, computation: Computation, instruction: Instruction, schedule: Schedule, times: int):
    """A sparse core that was started without operands begins its work when it is handed them."""
    start = computation.named[instruction.operands[0]]
    if not start.operands:
      self._begin(computation, start, schedule, times)

  def _begin(self, computation: Computation, start: Instruction, schedule: Schedule, times: int):
    collectives = self._contents(start).collectives
    if start.opcode.removesuffix("-start") in COLLECTIVES:
      collectives = ((computation, start),)
    if collectives:
      self._collectives(start, collectives, schedule, times, asynchronous=True)
    else:
      self._copy(start, schedule, times)

  def _copy(self, start: Instruction, schedule: Schedule, times: int):
    """An asynchronous copy, slice or update in place, or what another unit of the chip does."""
    path, _ = self._path(start)
    called = self.module.called(start)
    if called is not None:
      self.ledger.notes[f"{start.opcode} of another unit, priced by the bytes of its result"] += times
      moved = in_hbm = sum(shape.bytes for shape in called.root.shapes)
    else:
      moved, in_hbm = copied_bytes(start)
    self.ledger.hbm_bytes += in_hbm * times
    if any(shape.memory_space == HOST for shape in start.shapes):
      self.ledger.notes[f"copy to or from the host's memory, at {HOST_BANDWIDTH / 1e9:g} GB/s"] += times
      schedule.start(start.name, "host", moved / HOST_BANDWIDTH, "host copy", path)
    else:
      schedule.start(start.name, "copy", in_hbm / self.chip.hbm_bandwidth, "copy", path)

  def _done(self, computation: Computation, instruction: Instruction, schedule: Schedule, times: int):
    start = self._origin(computation, instruction, schedule)
    if start is not None:
      moment, kind, path = schedule.pending[start]
      self.ledger.row(path, f"{kind} wait", schedule.until(moment), times)

  def _origin(self, computation: Computation, done: Instruction, schedule: Schedule) -> str | None:
    """The transfer under way that a done ends, found through what carries it along."""
    names = list(done.operands)
    for name in names:
      if name in schedule.pending:
        return name
      value = computation.named[name]
      if value.opcode in ("get-tuple-element", "bitcast") or self._carries(value) or value.opcode.endswith("-update"):
        names.extend(operand for operand in value.operands if operand not in names)
    return None

  def _carries(self, instruction: Instruction) -> bool:
    """Whether a fusion only computes while the collective in it, which began before, is under way."""
    contents = self._contents(instruction)
    return bool(contents.collectives) and "async_collective" in instruction.computation("calls")

  def _between_slices(self, computation: Computation, instruction: Instruction, schedule: Schedule, times: int):
    """A collective between slices runs from its send to the end of its recv; the send itself holds nothing up."""
    name = rendezvous(computation, instruction)
    if instruction.opcode == "send":
      transfer = across_slices(computation, instruction)
      if transfer is None:
        self.ledger.notes["transfer to the host"] += times
        return
      kind, received = transfer
      self.ledger.received[kind] += received * times
      schedule.start(name, "slices", received / self.chip.dcn_bandwidth, kind, self._path(instruction)[0])
    elif instruction.opcode == "recv-done" and name in schedule.pending:
      moment, kind, path = schedule.pending[name]
      self.ledger.row(path, f"{kind} wait", schedule.until(moment), times)

  # Work of the core

  def _compute(self, computation: Computation, instruction: Instruction, schedule: Schedule, times: int):
    contents = self._contents(instruction)
    kernels = ((computation, instruction),) if instruction.target == PALLAS else contents.kernels
    if instruction.opcode == "custom-call" and not kernels and instruction.cycles is None:
      if instruction.target not in FREE_TARGETS:
        self.ledger.notes[f"custom call {instruction.target}"] += times
      return
    flops = matmul_flops(computation, instruction) + contents.flops
    kernel_flops = sum(self._kernel(*kernel, times) for kernel in kernels)
    moved = hbm_bytes(self.module, computation, instruction)
    self.ledger.flops += flops * times
    self.ledger.kernel_flops += kernel_flops * times
    self.ledger.hbm_bytes += moved * times
    if kernels:
      core = (kernel_flops / KERNEL_EFFICIENCY + flops) / self.chip.peak_flops
      seconds = np.full(len(LEVELS), max(core, moved / self.chip.hbm_bandwidth))
    else:
      seconds = self._durations(instruction, flops, moved, times)
    schedule.work(seconds)
    self.ledger.row(*self._path(instruction), float(seconds[LIKELY]), times)

  def _durations(self, instruction: Instruction, flops: float, moved: float, times: int) -> np.ndarray:
    memory = moved / self.chip.hbm_bandwidth
    low = max(flops / self.chip.peak_flops, memory)
    if instruction.cycles is None:
      if moved >= NOTEWORTHY:
        self.ledger.notes[f"{instruction.opcode} without the compiler's estimate, priced by its bytes"] += times
      return np.full(len(LEVELS), low)
    high = instruction.cycles / self.chip.clock_hz
    vector = sum(shape.elements for shape in instruction.shapes) / VECTOR_ELEMENTS / self.chip.clock_hz
    likely = high if flops else min(high, max(memory, vector))
    return np.array([min(low, likely), likely, high])

  def _kernel(self, computation: Computation, instruction: Instruction, times: int) -> float:
    """FLOPs of a Pallas kernel."""
    answers = (kernel(self.module, computation, instruction) for kernel in self.kernels)
    flops = next((answer for answer in answers if answer is not None), None)
    if flops is None:
      self.ledger.notes[f"kernel {instruction.name.split('.')[0]} of unknown FLOPs, priced by its bytes"] += times
    return flops or 0.0
