"""Measures a trained run on held-out prompts and writes report.json and report.html; or compares several.

  python -m launch.evaluate --workdir=runs/scenes --suite=all
  python -m launch.evaluate --compare=runs/scenes,runs/others --out=runs/compared

Suites, the rows of `omniimage.evaluation.suites.SUITES`: `binding` (do pictures of scenes show what was asked),
`caption`, `questions`, `edits`, `sketch`, `conversation` (the other tasks over scenes, where the run has learnt them),
`reconstruction` (the image tokenizer), `seams` (between chunks), `quality` (of any pictures: SSIM, LPIPS, Fréchet and
kernel distances), or `all` that fit the run. Figures of other suites in an earlier report stay in it.

--compare writes compare.html: the settings in which runs differ, the figures that their reports have, their losses, and
what each of them draws of the same captions.
"""

import dataclasses

from absl import flags

from omniimage.errors import UserError
from omniimage.paths import anywhere
from omniimage.ranges import SEEDS, Range

from . import cli, number_flags, sampling_flags, weights

WORKDIR = cli.path_flag("workdir", "The run to evaluate.", in_buckets=True)
SUITE = flags.DEFINE_string("suite", "all", "A suite, as binding, reconstruction or seams; or all that fit the run.")
COMPARE = flags.DEFINE_list("compare", None, "Runs to show beside each other, instead of a workdir.")
OUT = cli.path_flag(
  "out", "Folder for report.json and report.html, or compare.html. Default: the workdir.", in_buckets=True
)
PROMPTS = number_flags.whole("prompts", 256, "Held-out prompts, or images; with --compare 24.", Range(1, 2**20))
INSTALL_SECONDS = number_flags.real(
  "install_seconds", None, "What installing took, to be noted in the report.", Range(0, 1e6)
)
LPIPS = cli.path_flag("lpips", "Weights of LPIPS, which launch.convert writes. Default: the file of the run's config.")
SEED = number_flags.whole("seed", 0, "Of the captions' words and the noise.", SEEDS)

MOST_PIXELS = 2**28  # of all pictures of a kind, some ten of which are in memory at once: 256 of 1024×1024


def main(argv: list[str]):
  if argv[1:]:
    raise UserError(f"{argv[1]!r} is not a flag; flags begin with --, as in --suite=binding")
  if COMPARE.value is not None:
    return compare_runs()
  if not WORKDIR.value:
    raise UserError("give --workdir=runs/scenes, the run to evaluate")

  import jax  # after the flags: a wrong one should not wait for it

  from omniimage.distributed.spread import everywhere
  from omniimage.evaluation.evaluate import evaluate, summary
  from omniimage.interop.lpips_weights import load

  from . import processes

  workdir = WORKDIR.value
  out = OUT.value or workdir
  with processes.joined():
    processes.end_at_once()
    spread = everywhere() if jax.device_count() > 1 else None
    run = weights.load_run(workdir, on_host=spread is not None)
    check_pixels(PROMPTS.value, run.settings.buckets[0].pixels)
    if INSTALL_SECONDS.value is not None:
      run = dataclasses.replace(run, seconds={"install": INSTALL_SECONDS.value, **run.seconds})
    settings = sampling_flags.overridden(run.settings)
    if LPIPS.value:
      load(LPIPS.value)  # for an error at once
      settings = dataclasses.replace(settings, lpips=str(LPIPS.value))
    run = dataclasses.replace(run, settings=settings)
    figures = evaluate(run, workdir, SUITE.value, out, PROMPTS.value, SEED.value, spread=spread)
    if jax.process_index() == 0:
      print(f"{workdir} at step {run.step}, seed {SEED.value}\n{summary(figures)}\nreport: {out / 'report.html'}")


def compare_runs():
  for name in ("workdir", "suite", "lpips", "install_seconds"):
    if flags.FLAGS[name].present:
      raise UserError(f"--{name} measures one run, and --compare shows what was measured of several; give one of them")
  if not OUT.value:
    raise UserError("give --out=runs/compared, the folder for compare.html")

  from omniimage.evaluation.compare import compare
  from omniimage.evaluation.report import SHOWN

  workdirs = [anywhere(path) for path in COMPARE.value]
  prompts = PROMPTS.value if flags.FLAGS["prompts"].present else SHOWN

  def sampled(settings):
    check_pixels(prompts, settings.buckets[0].pixels)
    return sampling_flags.overridden(settings)

  print(f"{compare(workdirs, OUT.value, prompts, SEED.value, sampled)} shows {', '.join(COMPARE.value)}")


def check_pixels(prompts: int, pixels: tuple[int, int]):
  """UserError where the pictures, of height × width pixels, would not fit into memory."""
  height, width = pixels
  most = MOST_PIXELS // (height * width)
  if prompts > most:
    raise UserError(f"--prompts={prompts}: of this run's {height}×{width} pixels at most {most:,} fit into memory")


if __name__ == "__main__":
  cli.run(main)
