"""HLO by hand, and a chip of round numbers: 1,000 cycles, 1,000 bytes of any kind and 10⁶ FLOPs each take 1 µs."""

import textwrap

from omniimage.planning.chips import Chip
from omniimage.planning.cost import Cost, cost
from omniimage.planning.hlo import Computation, Instruction, Module, parse

CHIP = Chip("round", 1e9, 1e12, 1e9, 1e9, 1e9, 1e8, torus=2, largest=64)  # slices exchange ten times as slowly
MICROSECOND = 1e-6


def module(entry: str, *computations: str, partitions: int = 4) -> str:
  """A module's text, from the instructions of its entry and other computations in full."""
  others = "\n".join(textwrap.dedent(text).strip("\n") + "\n" for text in computations)
  body = textwrap.indent(textwrap.dedent(entry).strip("\n"), "  ")
  head = f"HloModule step, is_scheduled=true, num_partitions={partitions}"
  return f"{head}\n\n{others}\nENTRY %main () -> f32[] {{\n{body}\n}}\n"


def priced(entry: str, *computations: str, **options) -> Cost:
  return cost(module(entry, *computations), CHIP, **options)


def microseconds(priced: Cost, level: str = "likely") -> float:
  return round(priced.seconds[level] / MICROSECOND, 6)


def found(entry: str, name: str, *computations: str) -> tuple[Module, Computation, Instruction]:
  """An instruction of the entry, and where it stands."""
  read = parse(module(entry, *computations))
  main = read.computations[read.entry]
  return read, main, main.named[name]


def product(
  name: str = "product", operand: str = "square", op_name: str = "jit(step)/jvp(Prior)/up/dot_general"
) -> str:
  """100 × 100 × 100 on the chip: 2 µs at the peak, 5 µs in the compiler's estimate, no bytes of HBM."""
  return (
    f"%{name} = f32[100,100]{{1,0:S(1)}} dot(%{operand}, %{operand}), lhs_contracting_dims={{1}}, "
    f'rhs_contracting_dims={{0}}, metadata={{op_name="{op_name}"}}, backend_config={{"estimated_cycles":"5000"}}'
  )


# What entries start with: a product's operand on the chip, 1,000 bytes in HBM, and the same on the chip.
OPERANDS = """
%square = f32[100,100]{1,0:S(1)} parameter(0)
%shard = f32[250]{0} parameter(1)
%near = f32[250]{0:S(1)} parameter(2)
"""
