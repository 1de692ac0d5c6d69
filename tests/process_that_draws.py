"""One process of several, for tests: writes a sample sheet over the devices of all.

python -m tests.process_that_draws FOLDER
"""

import sys
import types
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from launch import processes
from omniimage.data.sources import open_source
from omniimage.distributed.mesh import make_mesh
from omniimage.distributed.sharding import param_shardings
from omniimage.settings import MeshSettings
from omniimage.training.samples import SampleSheets
from tests import small


def write_sheet(folder: Path, devices: Sequence[jax.Device]):
  """FOLDER/sheet.png of a trained state, whose parameters lie in slices on the devices, if there are any."""
  settings = small.settings(**small.SHALLOW)
  system = small.system(settings)
  params = small.params(system)
  if devices:
    mesh = make_mesh(MeshSettings(data=1, fsdp=len(devices), tensor=1, sequence=1), devices)
    devices = list(mesh.devices.flat)
    for part in system.parts:
      shardings = param_shardings(mesh, system.parts[part].rules, part, params[part])
      params[part] = jax.tree.map(
        lambda x, sharding: jax.make_array_from_callback(x.shape, sharding, lambda place: x[place]),
        params[part], shardings,
      )  # fmt: skip
  folder.mkdir(exist_ok=True)
  sources = [
    open_source(settings.data, split, settings.buckets, small.text_tokenizer(), system.vocabulary)
    for split in ("train", "test")
  ]
  state = types.SimpleNamespace(averaged=params, step=np.int32(settings.total_steps))
  SampleSheets(system, small.text_tokenizer(), sources, folder, devices).write(state, "sheet")


def main(argv: list[str]):
  with processes.joined():
    write_sheet(Path(argv[1]), jax.devices())


if __name__ == "__main__":
  main(sys.argv)
