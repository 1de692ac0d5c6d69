"""Measures a trained run on held-out prompts and writes report.json and report.html.

  python -m launch.evaluate --workdir=runs/scenes --suite=all

Suites: `binding` (do pictures of scenes show what was asked), `reconstruction` (the image tokenizer), `seams` (between
chunks), or `all` that fit the run. Figures of other suites in an earlier report stay in it.
"""

import dataclasses

from absl import flags

from launch import cli, sampling_flags
from omniimage.errors import UserError

WORKDIR = cli.path_flag("workdir", "The run to evaluate.")
SUITE = flags.DEFINE_string("suite", "all", "binding, reconstruction, seams or all.")
OUT = cli.path_flag("out", "Folder for report.json and report.html. Default: the workdir.")
PROMPTS = flags.DEFINE_integer("prompts", 256, "Held-out prompts, or images.", lower_bound=1)
INSTALL_SECONDS = flags.DEFINE_float("install_seconds", None, "What installing took, to be noted in the report.")
SEED = flags.DEFINE_integer("seed", 0, "Of the captions' words and the noise.", lower_bound=0)


def main(argv: list[str]):
  if argv[1:]:
    raise UserError(f"{argv[1]!r} is not a flag; flags begin with --, as in --suite=binding")
  if not WORKDIR.value:
    raise UserError("give --workdir=runs/scenes, the run to evaluate")

  from omniimage.evaluation import suites  # after the flags: a wrong one should not wait for jax
  from omniimage.workdir import load_run

  workdir = WORKDIR.value
  out = OUT.value or workdir
  run = load_run(workdir)
  if INSTALL_SECONDS.value is not None:
    run = dataclasses.replace(run, seconds={"install": INSTALL_SECONDS.value, **run.seconds})
  settings = dataclasses.replace(run.settings, sampling=sampling_flags.overridden(run.settings.sampling))
  run = dataclasses.replace(run, settings=settings)
  figures = suites.evaluate(run, workdir, SUITE.value, out, PROMPTS.value, SEED.value)
  print(f"{workdir} at step {run.step}, seed {SEED.value}\n{suites.summary(figures)}\nreport: {out / 'report.html'}")


if __name__ == "__main__":
  cli.run(main)
