"""The sizes for pods are what their table says, and divide over their meshes."""

from pathlib import Path

import jax
import pytest

from configs import omni as config_file
from omniimage.distributed.sharding import param_specs
from omniimage.settings import from_config
from omniimage.systems.omni import OmniSystem
from tests import small

TABLE = {
  row[0]: [int(cell.replace(",", "")) if cell else None for cell in row[2:6]]
  for row in (
    [cell.strip() for cell in line.split("|")[1:]] for line in config_file.__doc__.splitlines() if "|" in line
  )
  if row[0] in config_file.VARIANTS
}


def parameters(variant: str):
  settings = from_config(config_file.get_config(variant))
  return settings, jax.eval_shape(small.omni(settings).init, jax.random.key(0))


@pytest.mark.parametrize("variant", config_file.VARIANTS)
def test_the_table_tells_the_number_of_parameters(variant):
  _, params = parameters(variant)
  counted = [sum(leaf.size for leaf in jax.tree.leaves(params[part])) / 1e6 for part in OmniSystem.parts]
  for stated, found in zip(TABLE[variant], (*counted, sum(counted))):
    assert stated is None or abs(stated - found) < 0.5, (counted, sum(counted))


@pytest.mark.parametrize("variant", config_file.VARIANTS)
def test_every_matrix_divides_into_slices_of_whole_tiles(variant):
  settings, params = parameters(variant)
  parts = ("prior",) if variant == "peer" else OmniSystem.parts

  def check(path, leaf, spec):
    for size, axis in zip(leaf.shape, spec):
      if axis is not None and "fsdp" in axis:
        assert size % settings.mesh.fsdp == 0 and size // settings.mesh.fsdp >= 8, (path, leaf.shape)

  for part in parts:
    jax.tree.map_with_path(check, params[part], param_specs(OmniSystem.parts[part].rules, part, params[part]))


def test_an_unknown_size_is_refused():
  with pytest.raises(ValueError, match="300m, 1b, 7b, peer"):
    config_file.get_config("2b")


def test_the_docs_know_every_size():
  text = Path("docs/tpu.md").read_text()
  assert all(f"configs/omni.py:{variant}" in text for variant in ("300m", "1b", "7b"))
