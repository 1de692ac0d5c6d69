"""Evaluating a run: its suites one after another, and what comes of them."""

import time
from pathlib import Path

import jax

from omniimage import buckets
from omniimage.data.sources import open_source
from omniimage.distributed.agree import first_says
from omniimage.distributed.spread import Spread
from omniimage.errors import UserError
from omniimage.evaluation.report import Conditions, Results, read_figures, write_report
from omniimage.evaluation.suites import SUITES, suites_of
from omniimage.paths import trouble, writing
from omniimage.systems import open_generator, open_system, system_named
from omniimage.workdir import Run, Workdir


def evaluate(
  run: Run,
  workdir: Path,
  suite: str,
  out: Path,
  prompts: int,
  seed: int,
  batch: int = 64,
  spread: Spread | None = None,
) -> dict:
  """Runs a suite, or all, writes the report into `out`, and returns the figures that were measured.

  With `spread`, batches are over its devices. Where these are of several processes, all of them call it alike and come
  to the same figures, and the first one writes.

  Raises UserError, before anything is compiled, where the suite does not fit the run or nothing can be written.
  """
  data, system = run.settings.data, open_system(run.settings, run.text_tokenizer.size)
  source = open_source(data, "test", run.settings.buckets, run.text_tokenizer, system.vocabulary)
  names = suites_of(suite, source, system)
  first_says(lambda: check_out(out))
  read_figures(out)  # for an error at once
  generator, found, seconds = open_generator(system, run.params, run.text_tokenizer, spread), {}, dict(run.seconds)
  for name in names:
    began = time.perf_counter()
    found[name] = SUITES[name].run(generator, prompts, seed, batch, found)
    seconds[name] = time.perf_counter() - began
  seconds["evaluate"] = sum(seconds[name] for name in names)
  seconds = {name: round(value, 1) for name, value in seconds.items()}
  results = Results(Conditions(run.step, seed, prompts, run.settings.sampling), seconds, found)
  if jax.process_index() > 0:
    return results.figures()
  with writing(out):
    write_report(out, results, facts_of(run, workdir), Workdir(workdir).metrics / "metrics.jsonl")
  return results.figures()


def check_out(out: Path):
  """Makes the folder. UserError where nothing can be written."""
  try:
    if not buckets.is_remote(out):
      out.mkdir(parents=True, exist_ok=True)
    probe = out / ".writable"
    probe.touch()
    probe.unlink()
  except Exception as error:
    why = trouble(error)
    if not why:
      raise
    raise UserError(f"cannot write to {out}: {why}; choose another --out") from None


def facts_of(run: Run, workdir: Path) -> dict[str, str]:
  """What the report says about the run, whichever evaluation its figures are of."""
  settings = run.settings
  size, has_codes = settings.buckets[0], "codes" in system_named(settings.system).abilities
  pixels, tokens = ("×".join(map(str, counts)) for counts in (size.pixels, (size.rows, size.columns)))
  planned = f", {tokens} tokens of {settings.tokenizer.codes:,} codes" if has_codes else ""
  millions = {part: sum(x.size for x in jax.tree.leaves(run.params[part])) / 1e6 for part in run.params}
  return {
    "run": workdir.absolute().name,
    "schedule": f"{settings.total_steps:,} steps: {', '.join(settings.schedule)}",
    "data": f"{settings.data.source.name}, {pixels} pixels{planned}",
    "parameters": ", ".join(f"{part} {count:.2f} M" for part, count in millions.items()),
  }


def summary(figures: dict) -> str:
  """The figures as lines for a terminal."""
  lines = [line for name, suite in SUITES.items() if name in figures for line in suite.lines(figures[name])]
  seconds = {name: value for name, value in figures.get("seconds", {}).items() if name not in SUITES}
  if seconds:
    listed = ", ".join(f"{name} {value:.0f}" for name, value in seconds.items())
    lines.append(f"{'seconds':<26}{sum(seconds.values()):>14.0f}   {listed}")
  return "\n".join(lines)
