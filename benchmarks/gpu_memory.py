"""How much memory training takes on one NVIDIA GPU, from XLA's own compiler for it, which needs no GPU.

  pip install -e '.[cuda]'
  python -m benchmarks.gpu_memory --config=configs/omni.py:300m --card=A100 [--stages=prior,joint --rows=1,2,4]

The real step (`omniimage/training/sharded.py`) is compiled for a card that is not there, on a mesh of this one alone,
with the kernels and the compute type that training would choose for it. Bytes are the compiler's:

  state        parameters and, of the parts that move in the stage, their averages and the optimizer's moments
  temporaries  gradients, activations, cuDNN's workspace, and the new state, which is written beside the old one: as
               much as is live at one time
  needed       both, and the batch

--rows=0 compiles nothing: then temporaries are the gradients and the new state, which no number of rows can do without.

Beside it CUDA, cuDNN and cuBLAS themselves take some hundred MB, so that a card is counted as 90 % of its memory, what
XLA_PYTHON_CLIENT_MEM_FRACTION=0.9 lets JAX have. Nothing is timed: which algorithms a real card would choose by trying
them is left out, and products are those of cuBLAS.
"""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

from absl import app, flags

from launch import config_file

CONFIG = config_file.define("Config file, with its variant: configs/omni.py:300m.")
CARD = flags.DEFINE_string("card", "A100", "A card of CARDS.")
STAGES = flags.DEFINE_list("stages", [], "Stages; by default all of the schedule.")
ROWS = flags.DEFINE_list("rows", ["0"], "Rows of a step, one after the other; 0: what a step needs without any.")

WITHOUT_A_GPU = {
  "JAX_PLATFORMS": "cpu",
  "XLA_FLAGS": "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false",
  "JAX_ENABLE_COMPILATION_CACHE": "false",  # a program cannot be read back without its card
}
SHARE = 0.9  # of a card's memory
GB = 1e9

# As XLA describes devices (stream_executor.GpuTargetConfigProto). Numbers are of the makers' data sheets.
TARGET = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: {shared} threads_per_core_limit: {threads} core_count: {cores} fpus_per_core: {lanes}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth} l2_cache_size: {cache} clock_rate_ghz: {clock} device_memory_size: {memory}
  shared_memory_per_block_optin: {optin} cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 patch: 0 }}
device_description_str: "{name}"
"""


@dataclasses.dataclass(frozen=True)
class Card:
  """Memory in bytes, as `nvidia-smi` shows it; the rest as in `TARGET`."""

  name: str
  memory: int
  major: int
  minor: int
  cores: int
  lanes: int
  threads: int
  shared: int
  optin: int
  bandwidth: int
  cache: int
  clock: float

  @property
  def target(self) -> str:
    return TARGET.format(**dataclasses.asdict(self))


MIB, KIB = 2**20, 2**10
CARDS = {
  "T4": Card("Tesla T4", 15_360 * MIB, 7, 5, 40, 64, 1024, 64 * KIB, 64 * KIB, 320_000_000_000, 4 * MIB, 1.59),
  "L4": Card("NVIDIA L4", 23_034 * MIB, 8, 9, 58, 128, 1536, 100 * KIB, 99 * KIB, 300_000_000_000, 48 * MIB, 2.04),
  "A100": Card(
    "NVIDIA A100-SXM4-80GB", 81_157 * MIB, 8, 0, 108, 64, 2048, 164 * KIB, 163 * KIB, 2_039_000_000_000, 40 * MIB, 1.41
  ),
}


@dataclasses.dataclass(frozen=True)
class Needed:
  """Bytes of a step on one card."""

  stage: str
  rows: int
  state: int
  temporaries: int
  total: int

  def fits(self, card: Card) -> bool:
    return self.total <= SHARE * card.memory


def device(card: Card) -> Any:
  """A card that is not there, as JAX's compiler for CUDA knows it."""
  from jax.experimental import topologies

  return topologies.get_topology_desc(platform="cuda", topology="1x1x1", target_config=card.target).devices[0]


def steps(config: Any, card: Card, stages: list[str], rows: list[int]) -> Iterator[Needed]:
  """The needs of each stage with each number of rows; a batch is not split."""
  import jax

  from omniimage.data.text import TextTokenizer
  from omniimage.distributed.mesh import make_mesh
  from omniimage.interop.start import complete
  from omniimage.settings import MeshSettings, from_config
  from omniimage.training import sharded

  settings = dataclasses.replace(from_config(complete(config)), mesh=MeshSettings(1, 1, 1, 1), gather_params="compiler")
  mesh = make_mesh(settings.mesh, [device(card)])
  system = sharded.system_for(settings, TextTokenizer.load(settings.data.vocabulary).size, mesh)
  for stage in stages or settings.schedule:
    state = sharded.abstract_state(system, stage, mesh)
    step = sharded.jitted_step(system, stage, 0, mesh, state)
    held, moving = size(state), {part: state.params[part] for part in settings.stages[stage].moves}
    for count in rows:
      if count == 0:
        again = 2 * size(moving) + size((state.ema, state.opt_state))  # the gradients, and what is written anew
        yield Needed(stage, 0, held, again, held + again)
        continue
      with jax.set_mesh(mesh):
        compiled = step.lower(state, sharded.abstract_batch(system, stage, count, mesh)).compile()
      yield needed(stage, count, compiled.memory_analysis(), held)


def size(tree: Any) -> int:
  import jax

  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def needed(stage: str, rows: int, analysis: Any, state: int) -> Needed:
  """From the compiler's figures for a program and the bytes of its state."""
  outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
  total = analysis.argument_size_in_bytes + outputs + analysis.temp_size_in_bytes
  return Needed(stage, rows, state, analysis.temp_size_in_bytes, total)


def line(found: Needed, card: Card) -> str:
  sizes = " | ".join(f"{size / GB:.2f}" for size in (found.state, found.temporaries, found.total))
  return f"| {found.stage} | {found.rows} | {sizes} | {'yes' if found.fits(card) else 'no'} |"


def main(_):
  os.environ.update(WITHOUT_A_GPU)
  card = CARDS[CARD.value]
  print(f"| stage | rows | state, GB | temporaries, GB | needed, GB | fits {card.name} |")
  print("| --- | --- | --- | --- | --- | --- |")
  for found in steps(CONFIG.value, card, STAGES.value, [int(rows) for rows in ROWS.value]):
    print(line(found, card), flush=True)


if __name__ == "__main__":
  app.run(main)
