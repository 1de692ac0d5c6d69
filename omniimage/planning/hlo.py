"""A compiled TPU program, read from its optimized and scheduled HLO text.

`parse` turns the text into frozen dataclasses: a module of computations, each a list of instructions in the order in
which the core runs them. `Module.trips` says how often a loop runs.
"""

import dataclasses
import functools
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping

BITS = {"pred": 8, "token": 0, "opaque": 0}  # of the types whose name does not say it
HOST = 5  # the memory space
MAX_TRIPS = 100_000  # a loop that a scalar run does not leave within these has no known trip count

_SHAPE = re.compile(r"\b([a-z]+\d*\w*)\[([\d,<=]*)\](?:\{([^{}]*)\})?")
_COMPUTATION = re.compile(r"(ENTRY )?%?([^\s(]+) \(.*\{\s*")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?(\S+) = ")
_OPCODE = re.compile(r" ([a-z][a-z0-9-]*)\(")
_QUOTED_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[()]')
_ARITHMETIC: Mapping[str, Callable] = {
  "add": operator.add,
  "subtract": operator.sub,
  "multiply": operator.mul,
  "maximum": max,
  "minimum": min,
  "and": operator.and_,
  "or": operator.or_,
}
_SAME_VALUE = ("bitcast", "convert", "copy", "copy-start", "copy-done", "reshape", "broadcast")


@dataclasses.dataclass(frozen=True)
class Shape:
  dtype: str
  dims: tuple[int, ...]
  memory_space: int = 0  # 0 device memory (HBM), 5 host memory, others on the chip

  @property
  def elements(self) -> int:
    return math.prod(self.dims)

  @property
  def bytes(self) -> float:
    digits = re.match(r"[a-z]+(\d+)", self.dtype)
    bits = BITS[self.dtype] if self.dtype in BITS else int(digits.group(1)) if digits else 32
    return self.elements * bits / 8

  @property
  def hbm_bytes(self) -> float:
    return self.bytes if self.memory_space == 0 else 0.0


@dataclasses.dataclass(frozen=True)
class Instruction:
  name: str
  opcode: str
  shapes: tuple[Shape, ...]  # of the result; a tuple's leaves in order
  operands: tuple[str, ...]  # names
  literal: str  # what stands between the parentheses: a constant's value, a parameter's number
  attributes: str  # what follows them
  is_root: bool = False

  def computation(self, *keys: str) -> str | None:
    """The computation that the first attribute of these names refers to: calls, to_apply, body, condition."""
    for key in keys:
      match = re.search(rf"\b{key}=%?([^\s,}})]+)", self.attributes)
      if match:
        return match.group(1)
    return None

  @property
  def branches(self) -> tuple[str, ...]:
    """The computations a conditional chooses from."""
    listed = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
    if listed:
      return tuple(re.findall(r"[^\s,%]+", listed.group(1)))
    return tuple(name for key in ("true_computation", "false_computation") if (name := self.computation(key)))

  @property
  def target(self) -> str:
    """What a custom call calls."""
    match = re.search(r'custom_call_target="([^"]*)"', self.attributes)
    return match.group(1) if match else ""

  @property
  def op_name(self) -> str:
    """The path of transformations, modules and the primitive this came from; empty where the compiler made it up."""
    match = re.search(r'metadata=\{[^{}]*op_name="((?:[^"\\]|\\.)*)"', self.attributes)
    return match.group(1) if match else ""

  @property
  def cycles(self) -> int | None:
    """The compiler's own estimate; None where it has none."""
    match = re.search(r'"estimated_cycles":"(-?\d+)"', self.attributes)
    return max(0, int(match.group(1))) if match else None

  @property
  def index(self) -> int:
    """Which element a get-tuple-element takes, or which parameter this is."""
    if self.opcode == "parameter":
      return int(self.literal)
    return int(re.search(r"index=(\d+)", self.attributes).group(1))


@dataclasses.dataclass(frozen=True)
class Computation:
  name: str
  instructions: tuple[Instruction, ...]

  def __iter__(self) -> Iterator[Instruction]:
    return iter(self.instructions)

  @functools.cached_property
  def named(self) -> Mapping[str, Instruction]:
    return {instruction.name: instruction for instruction in self}

  @functools.cached_property
  def users(self) -> Mapping[str, tuple[Instruction, ...]]:
    """The instructions that take a value as an operand, by the value's name."""
    users = {}
    for instruction in self:
      for name in dict.fromkeys(instruction.operands):
        users.setdefault(name, []).append(instruction)
    return {name: tuple(found) for name, found in users.items()}

  @functools.cached_property
  def parameters(self) -> Mapping[int, Instruction]:
    return {instruction.index: instruction for instruction in self if instruction.opcode == "parameter"}

  @functools.cached_property
  def root(self) -> Instruction:
    return next((x for x in self if x.is_root), self.instructions[-1])

  def operand_shapes(self, instruction: Instruction) -> tuple[Shape, ...]:
    return tuple(shape for name in instruction.operands if name in self.named for shape in self.named[name].shapes)


@dataclasses.dataclass(frozen=True)
class Module:
  computations: Mapping[str, Computation]
  entry: str
  partitions: int  # devices that run the program in step; of one slice where there are several

  def called(self, instruction: Instruction) -> Computation | None:
    """The computation that a fusion, a call or an asynchronous wrapper runs."""
    return self.computations.get(instruction.computation("calls", "called_computation", "to_apply") or "")

  @functools.cached_property
  def callers(self) -> Mapping[str, tuple[Computation, Instruction]]:
    """One instruction that runs each computation, and where it stands."""
    keys = ("calls", "called_computation", "to_apply", "body")
    return {
      name: (computation, instruction)
      for computation in self.computations.values()
      for instruction in computation
      if (name := instruction.computation(*keys))
    }

  def constant(self, computation: Computation, name: str) -> str | None:
    """The literal a value comes from, through copies, fusions' parameters and what loops carry along unchanged."""
    instruction = computation.named.get(name)
    if instruction is None or instruction.opcode == "constant":
      return instruction.literal if instruction else None
    if instruction.opcode in _SAME_VALUE:
      return self.constant(computation, instruction.operands[0])
    if instruction.opcode not in ("parameter", "get-tuple-element") or computation.name not in self.callers:
      return None
    around, caller = self.callers[computation.name]
    if caller.opcode != "while":
      return self.constant(around, caller.operands[instruction.index]) if instruction.opcode == "parameter" else None
    initial = around.named.get(caller.operands[0])
    carried = instruction.opcode == "get-tuple-element" and initial is not None and initial.opcode == "tuple"
    return self.constant(around, initial.operands[instruction.index]) if carried else None

  def trips(self, computation: Computation, loop: Instruction) -> int | None:
    """How often a while loop's body runs; None when the text does not tell.

    Where the compiler does not state it, the scalars that the condition reads are run through condition and body.
    """
    stated = re.search(r"known_trip_count[^\d}]*(\d+)", loop.attributes)
    if stated:
      return int(stated.group(1))
    condition, body = (self.computations[loop.computation(key)] for key in ("condition", "body"))
    carry = _Carry(self, computation, loop)
    for trips in range(MAX_TRIPS):
      goes_on = _scalar(self, condition, condition.root.name, carry)
      if goes_on is None:
        return None
      if not goes_on:
        return trips or (None if carry.assumed else 0)
      outputs = body.root.operands
      stepped = {index: _scalar(self, body, outputs[index], carry) for index in tuple(carry.values)}
      if stepped == carry.values:  # the counter stands still as far as the text tells
        return None
      carry.values.update(stepped)
    return None


class _Carry:
  """The scalars of a loop's tuple, looked up when they are first asked for.

  One that comes from elsewhere is taken to start at zero: a counter does.
  """

  def __init__(self, module: Module, computation: Computation, loop: Instruction):
    self.module, self.computation, self.loop = module, computation, loop
    self.initial = computation.named.get(loop.operands[0])
    self.values: dict[int, int | None] = {}
    self.assumed = False

  def __getitem__(self, index: int) -> int | None:
    if index not in self.values:
      value = None
      if self.initial is not None and self.initial.opcode == "tuple":
        value = _scalar(self.module, self.computation, self.initial.operands[index], None)
      if value is None and self.loop.shapes[index].dims == ():
        value, self.assumed = 0, True
      self.values[index] = value
    return self.values[index]


def _scalar(module: Module, computation: Computation, name: str, scope) -> int | None:
  """The value of an integer, through arithmetic, fusions and calls; `scope[i]` is element or parameter i."""
  instruction = computation.named.get(name)
  if instruction is None:
    return None
  opcode, operands = instruction.opcode, instruction.operands
  if opcode == "constant":
    text = {"true": "1", "false": "0"}.get(instruction.literal.strip(), instruction.literal.strip())
    return int(text) if re.fullmatch(r"-?\d+", text) else None
  if opcode in ("parameter", "get-tuple-element"):
    of_scope = opcode == "parameter" or computation.named[operands[0]].opcode == "parameter"
    return scope[instruction.index] if scope is not None and of_scope else None
  if opcode in _SAME_VALUE:
    return _scalar(module, computation, operands[0], scope)
  if opcode in ("fusion", "call"):
    values = [_scalar(module, computation, operand, scope) for operand in operands]
    inner = module.called(instruction)
    return _scalar(module, inner, inner.root.name, values)
  if opcode not in _ARITHMETIC and opcode != "compare":
    return None
  values = [_scalar(module, computation, operand, scope) for operand in operands]
  if None in values:
    return None
  if opcode == "compare":
    direction = re.search(r"direction=(\w+)", instruction.attributes).group(1)
    return int(getattr(operator, direction.lower())(*values))
  return _ARITHMETIC[opcode](*values)


def parse(text: str) -> Module:
  """Reads the text that `compiled.as_text()` gives."""
  computations, entry, name, body = {}, "", None, []
  for line in _logical_lines(text):
    if name is None:
      head = _COMPUTATION.fullmatch(line)
      if head:
        name, body = head.group(2), []
        entry = name if head.group(1) else entry
    elif line[0] == "}":
      computations[name], name = Computation(name, tuple(body)), None
    else:
      body.append(_instruction(line))
  partitions = re.search(r"num_partitions=(\d+)", text.split("\n", 1)[0])
  return Module(computations, entry, int(partitions.group(1)) if partitions else 1)


def _logical_lines(text: str) -> Iterator[str]:
  """Heads, instructions and closing brackets of computations; an instruction's line breaks are taken out."""
  pending = None
  for line in text.splitlines():
    starts, ends = bool(_INSTRUCTION.match(line)), line == "}" or line.startswith("}, ")
    if pending is not None and not (starts or ends):
      pending += " " + line
      continue
    if pending is not None:
      yield pending
      pending = None
    if starts:
      pending = line
    elif line:
      yield line


def _instruction(line: str) -> Instruction:
  head = _INSTRUCTION.match(line)
  opcode = _OPCODE.search(line, head.end() - 1)
  end = _closing(line, opcode.end() - 1)
  literal = line[opcode.end() : end]
  names = () if opcode.group(1) in ("constant", "parameter") else tuple(re.findall(r"%([^\s,()]+)", literal))
  shapes = _shapes(line[head.end() : opcode.start()])
  is_root = head.group(1) is not None
  return Instruction(head.group(2), opcode.group(1), shapes, names, literal, line[end + 1 :], is_root)


def _closing(line: str, start: int) -> int:
  """Where the parenthesis that opens at `start` closes."""
  depth = 0
  for match in _QUOTED_OR_BRACKET.finditer(line, start):
    depth += {"(": 1, ")": -1}.get(match.group(), 0)
    if depth == 0:
      return match.start()
  raise ValueError(f"HLO instruction without a closing parenthesis: {line[:200]}")


def _shapes(text: str) -> tuple[Shape, ...]:
  found = []
  for dtype, dims, layout in _SHAPE.findall(text):
    sizes = tuple(int(size.removeprefix("<=")) for size in dims.split(",") if size)
    space = re.search(r"S\((\d+)\)", layout)
    found.append(Shape(dtype, sizes, int(space.group(1)) if space else 0))
  return tuple(found)
