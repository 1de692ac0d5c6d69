"""FLOPs of an instruction: matrix products by their shapes, Pallas kernels by what is known of them."""

import math
import re
from collections.abc import Callable

import numpy as np

from omniimage.planning.hlo import Computation, Instruction, Module

KernelFlops = Callable[[Module, Computation, Instruction], float | None]


def matmul_flops(computation: Computation, instruction: Instruction) -> float:
  """2 × multiplications of a dot or a convolution; zero for everything else."""
  if instruction.opcode not in ("dot", "convolution"):
    return 0.0
  left, right = (computation.named[name].shapes[0].dims for name in instruction.operands[:2])
  out = instruction.shapes[0].dims
  if instruction.opcode == "dot":
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes).group(1)
    return 2.0 * math.prod(out) * math.prod(left[int(axis)] for axis in contracted.split(",") if axis)
  labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes).groups()
  left, right, out = (dict(zip(names, dims)) for names, dims in zip(labels, (left, right, out)))
  spatial = sorted(label for label in left if label.isdigit())
  windows = _windows(instruction, len(spatial))
  taps = math.prod(_taps(left[axis], right[axis], out[axis], **window) for axis, window in zip(spatial, windows))
  return 2.0 * out["b"] * out["f"] * right["i"] * taps


def _windows(instruction: Instruction, axes: int) -> list[dict[str, int]]:
  """Per spatial axis: stride, padding before the first element, and the dilations of input and kernel."""
  match = re.search(r"window=\{([^}]*)\}", instruction.attributes)
  fields = dict(field.split("=") for field in match.group(1).split()) if match else {}

  def values(key: str, default: str) -> list[int]:
    return [int(part.split("_")[0]) for part in fields.get(key, "x".join([default] * axes)).split("x") if part]

  columns = (values("stride", "1"), values("pad", "0"), values("lhs_dilate", "1"), values("rhs_dilate", "1"))
  return [dict(zip(("stride", "pad", "dilation", "kernel_dilation"), column)) for column in zip(*columns)]


def _taps(size: int, kernel: int, out: int, stride: int, pad: int, dilation: int, kernel_dilation: int) -> int:
  """How many pairs of an output position and a kernel element meet an input element, not padding or a gap."""
  position = np.arange(out)[:, None] * stride + np.arange(kernel) * kernel_dilation - pad
  inside = (position >= 0) & (position <= (size - 1) * dilation)
  return int(np.count_nonzero(inside & (position % dilation == 0)))


def splash_flops(module: Module, computation: Computation, instruction: Instruction) -> float | None:
  """Matrix products of JAX's splash attention over the blocks that its mask lets it visit.

  A forward block takes two products, the gradient of keys and values four, that of queries three, all at once five.
  """
  found = re.search(r"splash_m[hq]a_(fwd|dkv|dq)", instruction.name + instruction.op_name)
  floats = [x for x in computation.operand_shapes(instruction) if "f" in x.dtype and len(x.dims) >= 3]
  if found is None or len(floats) < 2:
    return None
  query, key = floats[:2]
  products = {"fwd": 2, "dkv": 4, "dq": 3}[found.group(1)]
  if found.group(1) == "dkv" and len(instruction.shapes[0].dims) > len(query.dims):
    products = 5  # the queries' gradient comes along, one part for each block of keys
  suffix = {"fwd": "", "dkv": "_dkv", "dq": "_dq"}[found.group(1)]
  queries, keys = query.dims[-2], key.dims[-2]
  blocks = (_blocks(instruction, f"block_q{suffix}", queries), _blocks(instruction, f"block_kv{suffix}", keys))
  return products * 2.0 * query.elements * keys * _visited(module, computation, instruction, blocks)


def _blocks(instruction: Instruction, name: str, length: int) -> int:
  """How many blocks a length is cut into; blocks of 512 where the text does not tell."""
  match = re.search(rf'\b{name}\\*": (\d+)', instruction.attributes)
  return -(-length // (int(match.group(1)) if match else 512))


def _visited(module: Module, computation: Computation, instruction: Instruction, blocks: tuple[int, int]) -> float:
  """The share of the blocks that a splash kernel computes.

  Its first operands are integer tables over the grid, the second of which is zero where a block is skipped; without
  them it visits all. Where the text leaves a table's values out, a full square grid is taken to be causal and any other
  to be visited whole, for a grid is as narrow as its mask allows.
  """
  tables = []
  for name in instruction.operands:
    shape = computation.named[name].shapes[0]
    if shape.dtype not in ("s8", "s16", "s32") or len(shape.dims) != 3:
      break
    tables.append((name, shape))
  if len(tables) < 2:
    return 1.0
  name, grid = tables[1]
  total = grid.dims[0] * math.prod(blocks)
  literal = module.constant(computation, name)
  if literal is not None and "..." not in literal:
    values = re.findall(r"\d+", literal)
    repeated = grid.elements // len(values)  # of one value, broadcast
    return repeated * sum(value != "0" for value in values) / total
  if grid.dims[1] == grid.dims[2] == blocks[0] == blocks[1]:
    return (blocks[0] + 1) / (2 * blocks[0])
  return min(1.0, grid.elements / total)


def stated_flops(module: Module, computation: Computation, instruction: Instruction) -> float | None:
  """What the kernel's author states in its cost estimate."""
  match = re.search(r'"cost_estimate":\{[^{}]*"flops":"?(\d+)', instruction.attributes)
  return float(match.group(1)) if match else None


KERNELS: tuple[KernelFlops, ...] = (splash_flops, stated_flops)  # the first that answers counts
