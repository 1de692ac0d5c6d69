"""Plans a training step or sampling for TPUs, on any Linux machine without one: memory, FLOPs, traffic and seconds.

python -m launch.plan --config=configs/omni.py:1b --topology=v5e:16x16 --out=plan.json
  [--num_slices=2 --stage=joint|prior|decoder|tokenizer|sample|paint --hlo=FILE --fit --config.KEY=VALUE]

What is assumed stands in omniimage/plan.py. Exit code 2, with a plan.json that says so, where the step does not fit.
"""

import os
import sys
from pathlib import Path

from absl import flags

from omniimage import strict_json
from omniimage.errors import UserError
from omniimage.paths import writing
from omniimage.ranges import Range

from . import cli, config_file, number_flags

CONFIG = config_file.define("Config file, with its variant: configs/omni.py:1b.")
TOPOLOGY = flags.DEFINE_string("topology", None, "Chip and shape of a slice: v5e:16x16, v5p:4x4x4.")
NUM_SLICES = number_flags.whole("num_slices", 1, "Slices, which mesh.data spans.", Range(1, 1024))
STAGE = flags.DEFINE_string("stage", None, "A stage of the config, or sample, or paint; by default the last.")
FIT = flags.DEFINE_bool("fit", False, "Find the largest batch that fits.")
HLO = cli.path_flag("hlo", "File to write the optimized HLO text to.")
OUT = cli.path_flag("out", "File to write the plan to, JSON.")

WITHOUT_A_TPU = {
  "TPU_SKIP_MDS_QUERY": "1",  # do not ask the cloud which TPU this is
  "JAX_PLATFORMS": "cpu",
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # any; without it and the next, libtpu complains on stderr
  "TPU_WORKER_HOSTNAMES": "localhost",
  "JAX_ENABLE_COMPILATION_CACHE": "false",  # a program cannot be read back without its chips
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",  # so that several plans can be made at once
}


def main(argv: list[str]):
  if argv[1:]:
    raise UserError(f"{argv[1]!r} is not a flag; flags begin with --, as in --topology=v5e:16x16")
  if CONFIG.value is None or not TOPOLOGY.value or not OUT.value:
    raise UserError("give --config=configs/omni.py:1b, --topology=v5e:16x16 and --out=plan.json")
  for path in filter(None, (OUT.value, HLO.value)):
    _check_writable(path)
  os.environ.update(WITHOUT_A_TPU)

  from omniimage.files import write_whole
  from omniimage.plan import plan  # after the flags, and after the environment that jax reads
  from omniimage.planning.table import table

  made = plan(CONFIG.value, TOPOLOGY.value, NUM_SLICES.value, STAGE.value, FIT.value, report=_report)
  with writing(OUT.value):
    write_whole(OUT.value, (strict_json.dumps(made.record, indent=2) + "\n").encode())
  if HLO.value and made.hlo:
    with writing(HLO.value):
      write_whole(HLO.value, made.hlo.encode())
  print(table(made.record))
  if not made.record["fits"]:
    raise UserError(f"{made.record['stage']} does not fit: give the stage fewer rows, recompute more (remat), or --fit")


def _report(text: str):
  print(text, file=sys.stderr, flush=True)


def _check_writable(path: Path):
  """Before the compiler runs for minutes."""
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f"{path} cannot be written: {error}") from None
  if path.is_dir() or not os.access(path.parent, os.W_OK):
    raise UserError(f"{path} cannot be written; give a file in a directory that can")


if __name__ == "__main__":
  cli.run(main)
