"""Writes a trained run as one folder to keep, give away and draw with: safetensors, JSON and a model card.

python -m launch.export --workdir=runs/mine --out=models/mine
python -m launch.export --workdir=runs/mine --out=models/mine --dtype=bfloat16 --licence=cc-by-4.0

Whatever reads a run reads the folder: launch.sample --workdir=models/mine, Generator.from_pretrained("models/mine").
"""

import shutil
from pathlib import Path

from absl import flags

from omniimage.commands import command
from omniimage.errors import UserError
from omniimage.paths import writing

from . import cli

WORKDIR = cli.path_flag("workdir", "The run.")
OUT = cli.path_flag("out", "The folder to make.")
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16", "float16"], "Of the arrays.")
LICENCE = flags.DEFINE_string("licence", "", "What the parameters may be used for, as the card says it: apache-2.0.")


def main(argv: list[str]):
  if argv[1:]:
    raise UserError(f"{argv[1]!r} is not a flag; flags begin with --, as in --workdir=runs/mine")
  if not WORKDIR.value or not OUT.value:
    raise UserError("give --workdir=RUN and --out=FOLDER")
  if len(LICENCE.value.splitlines()) > 1:
    raise UserError("--licence is one line, as apache-2.0")
  write_folder(OUT.value)
  print(f"{OUT.value} is written; draw with it: {command('sample')} --workdir={OUT.value} --prompt=…")


def write_folder(out: Path):
  from omniimage.evaluation import model_card  # after the flags: a wrong one should not wait for jax
  from omniimage.files import write_whole
  from omniimage.interop import pretrained
  from omniimage.interop.huggingface import require_new
  from omniimage.systems import load_run
  from omniimage.workdir import Workdir

  require_new(out)  # before the checkpoint is read
  run, workdir = load_run(WORKDIR.value), Workdir(WORKDIR.value)
  picture = workdir.samples / "final.png"
  card = model_card.model_card(run, workdir, out.absolute().name, LICENCE.value, picture.is_file())
  with writing(out):
    out.mkdir(parents=True, exist_ok=True)
    if picture.is_file():
      shutil.copyfile(picture, out / model_card.PICTURE)
    write_whole(out / "README.md", card.encode())
    pretrained.write(run, workdir, out, DTYPE.value)


if __name__ == "__main__":
  cli.run(main)
