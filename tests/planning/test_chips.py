"""Topologies and what their chips can do."""

import pytest

from omniimage.errors import UserError
from omniimage.planning.chips import CHIPS, chip_of, chips_in


@pytest.mark.parametrize(
  ("topology", "chips"),
  [("v5e:16x16", 256), ("v5p:4x4x4", 64), ("v5p:16x16x24", 6144), ("v4:2x2x1", 4), ("v6e:2x4", 8)],
)
def test_a_topology_has_the_product_of_its_sides_in_chips(topology, chips):
  assert chips_in(topology) == chips and chip_of(topology).name == topology.split(":")[0]


@pytest.mark.parametrize(
  ("topology", "words"),
  [
    ("v5e", "topology='v5e' is not CHIP:SHAPE; give one such as v5e:16x16"),
    ("v5e:16", "v5e slices have 2 sides; try v5e:4x4"),
    ("v5e:2x2x2", "v5e slices have 2 sides"),
    ("v5p:8x8", "v5p slices have 3 sides; try v5p:4x4x4"),
    ("v5e:32x16", "a slice of v5e has 1 to 256 chips, this has 512"),
    ("v5e:0x4", "1 to 256 chips, this has 0"),
    ("v5lite:4x4", "no chip 'v5lite'; expected v4, v5e, v5p, v6e, tpu7x; try v5e:..."),
    ("a100:4x4", "no chip 'a100'"),
  ],
)
def test_a_wrong_topology_is_said_in_one_line_with_one_that_is_right(topology, words):
  with pytest.raises(UserError) as raised:
    chip_of(topology)
  assert words in str(raised.value) and "\n" not in str(raised.value)


def test_memory_is_what_programs_get_which_is_less_than_the_data_sheets():
  sheets = {"v4": 32, "v5e": 16, "v5p": 96, "v6e": 32, "tpu7x": 96}  # GiB a device
  assert all(0.95 < CHIPS[name].hbm_bytes / 2**30 / size < 1 for name, size in sheets.items())
