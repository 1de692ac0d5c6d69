"""How many objects at once each system binds: all are trained on the same scenes, tuned and graded alike.

  python -m benchmarks.binding --out=runs/binding
  python -m benchmarks.binding --systems=omni,dalle1 --seeds=0 --out=runs/binding       # a part of it
  python -m benchmarks.binding --small --out=/tmp/binding                               # at a toy's size: does it run?

Each system is a variant of configs/systems.py, each seed of it a run. A run is trained; the settings of its sampling
are chosen on scenes of the validation split; then 256 scenes of each number of objects are drawn and graded, of the
test split and of pairs of color and shape that no system has seen. Whatever is done is kept under OUT/SYSTEM/SEED, and
the same command goes on behind it, wherever it was stopped; files of another config are refused, those of another
commit marked. Writes OUT/binding.json, OUT/binding.svg and OUT/binding.md of what there is. The method: docs/claim.md.
"""

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from benchmarks.binding_cells import TUNED, WORLD, Cell, Plan
from benchmarks.binding_figures import figures, sizes, tables
from benchmarks.binding_plot import plot
from launch import cli
from omniimage.errors import UserError
from omniimage.files import write_whole

OUT = flags.DEFINE_string("out", "runs/binding", "folder of the runs")
SYSTEMS = flags.DEFINE_list("systems", list(TUNED), "systems to compare")
SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "of the runs of each")
CONFIG = flags.DEFINE_string("config", "configs/systems.py:{}", "config of a system, whose name takes the place of {}")
JITTER = flags.DEFINE_integer("jitter", 0, "pixels that objects stand beside the centers of their cells", lower_bound=0)
SMALL = flags.DEFINE_boolean("small", False, "one tiny model, a few steps and a few scenes")

SMALL_STAGES = ("tokenizer", "prior", "decoder")
SMALL_STEPS = {f"stages.{name}.{key}": value for name in SMALL_STAGES
               for key, value in (("steps", 10), ("warmup_steps", 0))}  # fmt: skip
SMALL_PLAN = Plan(
  config="configs/scenes.py:tiny",
  world={**WORLD, "max_objects": 2},
  changes={"schedule": SMALL_STAGES, **SMALL_STEPS},
  scenes=4,
  tuning_scenes=4,
  objects=2,
  batch=4,
  tuned={"omni": {"diffusion_steps": (1,), "guidance": (1.0, 1.5)}},
)


def main(_):
  if SMALL.value:
    plan, systems, seeds = SMALL_PLAN, ["omni"], [0]
  else:
    world = {**WORLD, "jitter": JITTER.value}
    plan = Plan(CONFIG.value, world, {}, scenes=256, tuning_scenes=64, objects=20, batch=64)
    systems, seeds = SYSTEMS.value, _numbers(SEEDS.value)
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))  # so that the training ends well too
  # One seed of every system first: what there is can be compared early.
  compare([Cell(plan, system, seed, Path(OUT.value)) for seed in seeds for system in systems])


def compare(cells: Sequence[Cell]):
  """Does what is not done of all cells, and writes what they say together. UserError, before anything is trained, where
  one cannot be trained or its folder holds something else."""
  for cell in cells:
    cell.pieces()
    cell.claim()
  print(sizes(write(cells)["systems"]), file=sys.stderr, flush=True)
  for cell in cells:
    cell.train()
    cell.measure(lambda line: print(line, file=sys.stderr, flush=True))
    found = write(cells)
  print(tables(found))


def write(cells: Sequence[Cell]) -> dict:
  """The files of all cells together, of what there is."""
  found, out = figures(cells), cells[0].folder
  write_whole(out / "binding.json", (json.dumps(found, indent=1) + "\n").encode())
  write_whole(out / "binding.svg", plot(found["systems"]).encode())
  write_whole(out / "binding.md", tables(found).encode())
  return found


def _numbers(given: Sequence[str]) -> list[int]:
  if not given or not all(text.isdigit() for text in given):
    raise UserError(f"--seeds={','.join(given)}: expected whole numbers, as in --seeds=0,1,2")
  return [int(text) for text in given]


if __name__ == "__main__":
  app.run(cli.mendable(main), flags_parser=cli.parse)  # without the libraries' logs
