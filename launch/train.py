"""Trains all the stages of a config. The same command again goes on from the last checkpoint.

Asked to stop, by SIGTERM or a TPU's notice of maintenance, it saves and ends with exit code 75: run me again. So do the
processes of a run when another of them has died.

python -m launch.train --config=configs/scenes.py --workdir=runs/scenes [--config.KEY=VALUE]
"""

from launch import cli, config_file
from omniimage.errors import UserError

CONFIG = config_file.define("Config file, with its variant: configs/scenes.py:tiny.")
WORKDIR = cli.path_flag("workdir", "Where the run lives: config, checkpoints, metrics, samples.")


def main(argv: list[str]):
  if argv[1:]:
    raise UserError(f"{argv[1]!r} is not a flag; flags begin with --, as in --workdir=runs/scenes")
  if CONFIG.value is None or not WORKDIR.value:
    raise UserError("give --config=configs/scenes.py and --workdir=runs/scenes")

  import jax  # after the flags: a wrong one should not wait for it

  from launch import processes
  from omniimage.training.loop import train
  from omniimage.workdir import Workdir

  with processes.joined():
    state = train(CONFIG.value, WORKDIR.value)
    sheet = Workdir(WORKDIR.value).samples / "final.png"
    if jax.process_index() == 0:
      drawn = f"; what it draws: {sheet}" if sheet.exists() else ""
      print(f"{WORKDIR.value} is trained, {int(state.step)} steps{drawn}")


if __name__ == "__main__":
  cli.run(main)
