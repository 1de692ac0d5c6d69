"""Bytes an instruction moves: what a device receives from others, and what passes to and from its memory (HBM)."""

import math
import re

from omniimage.planning.hlo import Computation, Instruction, Module, Shape

COLLECTIVES = (
  "all-gather",
  "all-reduce",
  "all-to-all",
  "collective-broadcast",
  "collective-permute",
  "ragged-all-to-all",
  "reduce-scatter",
)
SLICES = ("dynamic-slice", "gather", "slice")
_DCN_KINDS = {"ONE_TO_ONE": "collective-permute"}  # others are the collective's name in capitals
_VIEWS = ("bitcast", "get-tuple-element")


def received_bytes(kind: str, sent: float, members: int) -> float:
  """What each of a group's members receives when each puts in `sent` bytes, in the least traffic the kind allows."""
  others = max(members - 1, 0)
  if kind == "all-gather":
    return sent * others
  if kind in ("collective-permute", "collective-broadcast"):
    return sent
  return sent * others / max(members, 1) * (2 if kind == "all-reduce" else 1)


def collective(computation: Computation, instruction: Instruction, devices: int) -> tuple[str, float]:
  """Kind and received bytes of a collective inside a slice.

  An all-reduce of which a fusion named so keeps only its own shard is a reduce-scatter. One that widens its operands,
  bfloat16 summed in float32, is taken to send the wider.
  """
  kind = instruction.opcode.removesuffix("-start")
  sent = sum(shape.bytes for shape in computation.operand_shapes(instruction))
  if kind == "all-reduce":
    sent = max(sent, sum(shape.bytes for shape in instruction.shapes))
  if kind == "all-reduce" and "all-reduce-scatter" in computation.name:
    kind = "reduce-scatter"
  return kind, received_bytes(kind, sent, group_size(instruction, devices))


def group_size(instruction: Instruction, devices: int) -> int:
  """The members of one replica group, in any of the ways HLO writes groups; all devices where it names none."""
  text = instruction.attributes
  if match := re.search(r"replica_groups=\[([\d,]+)\]<=", text):  # [groups,members]<=[...]
    return int(match.group(1).split(",")[-1])
  if match := re.search(r"replica_groups=\{\{([\d,]+)\}", text):  # {{0,1},{2,3}}
    return match.group(1).count(",") + 1
  if match := re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", text):  # mesh['x'=2,'y'=4] {'y':(1)2}
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", match.group(1))}
    axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", match.group(2))
    return math.prod(int(part) if part else sizes[name] for name, part in axes)
  return devices


def across_slices(computation: Computation, send: Instruction) -> tuple[str, float] | None:
  """Kind and received bytes of a collective between slices, from the `send` that begins it; None for other sends.

  The compiler writes such a collective as a transfer to the host and one back: the hosts' runtime does it in between.
  """
  transfer = re.search(r'_xla_megascale_transfer_type="(\w+)"', send.attributes)
  if transfer is None:
    return None
  name = transfer.group(1)
  kind = _DCN_KINDS.get(name, name.lower().replace("_", "-"))
  group = re.search(r'_xla_megascale_target="?\{+([^}]*)\}', send.attributes)
  sent = computation.named[send.operands[0]].shapes[0].bytes
  return f"dcn-{kind}", received_bytes(kind, sent, len(group.group(1).split(",")) if group else 2)


def rendezvous(computation: Computation, instruction: Instruction) -> str:
  """What the send and the recv of one transfer have in common. Their `-done`s name it through their operand."""
  if instruction.opcode.endswith("-done"):
    instruction = computation.named[instruction.operands[0]]
  match = re.search(r'_xla_host_transfer_rendezvous="([^"]*)"', instruction.attributes)
  return match.group(1) if match else instruction.name


def hbm_bytes(module: Module, computation: Computation, instruction: Instruction) -> float:
  """Bytes read from and written to device memory. Slices move what they take, updates in place what they write."""
  if instruction.opcode == "fusion":
    return _fusion_bytes(module, computation, instruction)
  if instruction.opcode in SLICES:
    return 2 * _in_hbm(instruction.shapes)
  if instruction.opcode == "dynamic-update-slice":
    return 2 * computation.named[instruction.operands[1]].shapes[0].bytes if _in_hbm(instruction.shapes) else 0.0
  return _in_hbm(instruction.shapes) + _in_hbm(computation.operand_shapes(instruction))


def copied_bytes(start: Instruction) -> tuple[float, float]:
  """What an asynchronous copy, slice or update in place moves, and what of it passes to and from HBM, where both ends
  may lie. Its shapes are those of its operands and its result; a copy's result comes first."""
  shapes = start.shapes
  if start.opcode == "copy-start":
    source, target, moved = shapes[1], shapes[0], shapes[0]
  elif start.opcode == "dynamic-update-slice-start":
    source, target, moved = shapes[1], shapes[0], shapes[1]
  else:
    source, target, moved = shapes[0], shapes[len(start.operands)], shapes[len(start.operands)]
  return moved.bytes, moved.bytes * ((source.memory_space == 0) + (target.memory_space == 0))


def _in_hbm(shapes: tuple[Shape, ...]) -> float:
  return sum(shape.hbm_bytes for shape in shapes)


def _fusion_bytes(module: Module, computation: Computation, fusion: Instruction) -> float:
  inner, total = module.called(fusion), 0.0
  for index, parameter in inner.parameters.items():
    whole = _in_hbm(parameter.shapes)
    if index < len(fusion.operands) and fusion.operands[index] in computation.named:
      whole = min(whole, _in_hbm(computation.named[fusion.operands[index]].shapes))
    if whole:
      total += min(whole, _read(module, inner, parameter, whole))
  results = inner.root.operands if inner.root.opcode == "tuple" else (inner.root.name,)
  for name, shape in zip(results, fusion.shapes):
    if shape.hbm_bytes:
      total += min(shape.hbm_bytes, _written(module, inner, name, shape))
  return total


def _read(module: Module, computation: Computation, value: Instruction, whole: float) -> float:
  """How much of a value a fused computation reads. Buffers that it hands on to a collective or its result: nothing."""
  total = 0.0
  for user in computation.users.get(value.name, ()):
    sliced = user.operands[0] == value.name
    if user.opcode in _VIEWS:
      total += _read(module, computation, user, whole)
    elif user.opcode in SLICES and sliced:
      total += _in_hbm_or_not(user.shapes)
    elif user.opcode == "fusion":
      inner = module.called(user)
      total += _read(module, inner, inner.parameters[user.operands.index(value.name)], whole)
      if _viewed(inner) == inner.parameters[user.operands.index(value.name)]:
        total += _read(module, computation, user, whole)
    elif not (user.opcode == "dynamic-update-slice" and sliced) and not _hands_on(user):
      total += whole
  return total


def _viewed(computation: Computation) -> Instruction:
  """What a computation's result is another view of."""
  value = computation.root
  while value.opcode == "bitcast":
    value = computation.named[value.operands[0]]
  return value


def _hands_on(user: Instruction) -> bool:
  return user.opcode == "tuple" or user.opcode in COLLECTIVES or user.target.startswith("AsyncCollective")


def _in_hbm_or_not(shapes: tuple[Shape, ...]) -> float:
  """Inside a fusion results have no memory space of their own."""
  return sum(shape.bytes for shape in shapes)


def _written(module: Module, computation: Computation, name: str, shape: Shape) -> float:
  """How much of a result a fused computation writes."""
  value = computation.named[name]
  while value.opcode == "bitcast":
    value = computation.named[value.operands[0]]
  if value.opcode == "dynamic-update-slice":
    return _in_hbm_or_not(computation.named[value.operands[1]].shapes)
  if value.opcode == "fusion" and module.called(value).root.opcode != "tuple":
    return _written(module, module.called(value), module.called(value).root.name, shape)
  return 0.0 if value.opcode == "parameter" or _hands_on(value) else shape.hbm_bytes
