"""The TPU chips a step can be planned for, by their public figures.

Peak rates and memory bandwidth are the maker's data sheets; memory is what the compiler lets a program use, as it says
when one does not fit. `ici_bandwidth` is what one ring through the chip carries: two links, each used both ways, which
is what a collective over one axis of the torus gets. `dcn_bandwidth` is a chip's share of its host's network cards: two
of 100 Gbit/s for the 8 chips of a v5e host, four of 200 Gbit/s for the 8 of a v6e host, 50 Gbit/s a chip on v5p. v4 is
assumed to have v5p's share, tpu7x v6e's. The clock of tpu7x follows from its peak and its matrix units.
"""

import dataclasses
import difflib
import math
import re

from omniimage.settings import require

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """What one JAX device of a kind can do. On tpu7x that is one of a chip's two cores, with half of the chip."""

  name: str
  clock_hz: float  # cycles/s
  peak_flops: float  # bfloat16 FLOP/s of the matrix units
  hbm_bytes: float  # bytes of device memory that a program may use
  hbm_bandwidth: float  # bytes/s to and from device memory
  ici_bandwidth: float  # bytes/s a device receives from its slice
  dcn_bandwidth: float  # bytes/s a device receives from other slices
  torus: int  # dimensions of a slice
  largest: int  # chips in the largest slice
  devices: int = 1  # JAX devices on one chip
  megacore: bool = False  # the compiler has to be told that a chip's two cores are one device


CHIPS = {
  chip.name: chip
  for chip in (
    Chip("v4", 1.05e9, 275e12, 30.75 * GIB, 1228e9, 9e10, 6.25e9, 3, 4096, megacore=True),
    Chip("v5e", 1.5e9, 197e12, 15.75 * GIB, 819e9, 9e10, 3.125e9, 2, 256),
    Chip("v5p", 1.75e9, 459e12, 95.73 * GIB, 2765e9, 1.8e11, 6.25e9, 3, 8960),
    Chip("v6e", 1.75e9, 918e12, 31.24 * GIB, 1640e9, 1.8e11, 1.25e10, 2, 256),
    Chip("tpu7x", 2.2e9, 1153.5e12, 94.74 * GIB, 3690e9, 9e10, 6.25e9, 3, 9216, devices=2),
  )
}


def chip_of(topology: str) -> Chip:
  """The kind of chip a topology such as "v5e:16x16" is made of."""
  return CHIPS[_parts(topology)[0]]


def chips_in(topology: str) -> int:
  """How many chips one slice of a topology has: 256 in "v5e:16x16"."""
  return math.prod(_parts(topology)[1])


def _parts(topology: str) -> tuple[str, tuple[int, ...]]:
  """The chip's name and the slice's dimensions."""
  match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", topology)
  require(match is not None, f"topology={topology!r} is not CHIP:SHAPE; give one such as v5e:16x16 or v5p:4x4x4")
  name = match.group(1)
  close = difflib.get_close_matches(name, CHIPS, n=1, cutoff=0.3) or ["v5e"]
  require(name in CHIPS, f"topology={topology!r}: no chip {name!r}; expected {', '.join(CHIPS)}; try {close[0]}:...")
  sizes, chip = tuple(int(size) for size in match.group(2).split("x")), CHIPS[name]
  example = "x".join(["4"] * chip.torus)
  require(
    len(sizes) == chip.torus, f"topology={topology!r}: {name} slices have {chip.torus} sides; try {name}:{example}"
  )
  require(
    0 < math.prod(sizes) <= chip.largest,
    f"topology={topology!r}: a slice of {name} has 1 to {chip.largest} chips, this has {math.prod(sizes)}",
  )
  return name, sizes
