"""Trains all the stages of a config. The same command again goes on from the last checkpoint.

Asked to stop, by SIGTERM or a TPU's notice of maintenance, it saves and ends with exit code 75: run me again. So do the
processes of a run when another of them has died.

A run never begins again by itself: where nothing whole is left of what it saved, the command stops and says so. With
--begin_anew it sets the old run aside and begins at step 0, with --from_step=N it goes on from an earlier checkpoint;
each of them once, so that the same command can be started again.

python -m launch.train --config=configs/scenes.py --workdir=runs/scenes [--config.KEY=VALUE]
"""

from absl import flags

from omniimage.errors import UserError
from omniimage.ranges import Range
from omniimage.settings import MOST_STEPS

from . import cli, config_file, number_flags

CONFIG = config_file.define("Config file, with its variant: configs/scenes.py:tiny.")
WORKDIR = cli.path_flag("workdir", "Where the run lives: config, checkpoints, metrics, samples.", in_buckets=True)
BEGIN_ANEW = flags.DEFINE_boolean(
  "begin_anew", False, "Moves the run that is there to WORKDIR/old_run and begins anew."
)
FROM_STEP = number_flags.whole(
  "from_step",
  None,
  "Goes on from this checkpoint and sets those of later steps aside.",
  Range(0, MOST_STEPS),
)


def main(argv: list[str]):
  if argv[1:]:
    raise UserError(f"{argv[1]!r} is not a flag; flags begin with --, as in --workdir=runs/scenes")
  if CONFIG.value is None or not WORKDIR.value:
    raise UserError("give --config=configs/scenes.py and --workdir=runs/scenes")
  if BEGIN_ANEW.value and FROM_STEP.value is not None:
    raise UserError("give --begin_anew or --from_step, not both")

  import jax  # after the flags: a wrong one should not wait for it

  from omniimage.training.loop import train
  from omniimage.workdir import Workdir

  from . import processes

  with processes.joined():
    state = train(CONFIG.value, WORKDIR.value, BEGIN_ANEW.value, FROM_STEP.value)
    sheet = Workdir(WORKDIR.value).samples / "final.png"
    if jax.process_index() == 0:
      drawn = f"; what it draws: {sheet}" if sheet.exists() else ""
      print(f"{WORKDIR.value} is trained, {int(state.step)} steps{drawn}")


if __name__ == "__main__":
  cli.run(main)
