"""Evaluating a run: which suites, in which order, and what comes of them."""

import time
from pathlib import Path

import jax
import numpy as np

from omniimage.data.sources import open_source
from omniimage.data.sources.source import Source
from omniimage.errors import UserError
from omniimage.evaluation.binding import Binding, binding
from omniimage.evaluation.held_out import Examples, graded_by
from omniimage.evaluation.reconstruction import reconstruction
from omniimage.evaluation.report import (
  KINDS,
  SUITES,
  Conditions,
  Results,
  counted,
  percent,
  read_figures,
  write_report,
)
from omniimage.evaluation.seams import Seams, seams
from omniimage.paths import writing
from omniimage.sampling.generate import Generator
from omniimage.settings import Settings
from omniimage.vocabulary import Vocabulary
from omniimage.workdir import Run, Workdir

UNGRADED = ("reconstruction", "seams")  # suites that fit every source


def suites_of(name: str, source: Source, learnt: str) -> tuple[str, ...]:
  """The suites that a name stands for: itself, or "all" that fit the run. UserError if it fits nothing.

  Args:
    source: of the run; its tasks' graders say which other suites than the ungraded ones fit.
    learnt: the name of the source.
  """
  fitting = tuple(suite for suite in SUITES if suite in UNGRADED or graded_by(source, suite))
  if name == "all":
    return fitting
  if name not in SUITES:
    raise UserError(f"there is no suite {name!r}; give one of {', '.join(SUITES)}, or all")
  if name not in fitting:
    raise UserError(
      f"{name} grades pictures of scenes, and this run has learnt {learnt}; "
      "evaluate --suite=reconstruction or --suite=seams"
    )
  return (name,)


def evaluate(run: Run, workdir: Path, suite: str, out: Path, prompts: int, seed: int, batch: int = 64) -> dict:
  """Runs a suite, or all, writes the report into `out`, and returns the figures that were measured.

  Raises UserError, before anything is compiled, where the suite does not fit the run or nothing can be written.
  """
  data, vocabulary = run.settings.data, Vocabulary(run.text_tokenizer.size, run.settings.tokenizer.codes)
  source = open_source(data, "test", run.settings.buckets[0], run.text_tokenizer, vocabulary)
  names = suites_of(suite, source, data.source.name)
  _check_out(out)
  generator, results, seconds = Generator(run.settings, run.params, run.text_tokenizer), {}, dict(run.seconds)
  for name in names:
    began = time.perf_counter()
    if name == "binding":
      results[name] = binding(generator, prompts, seed, batch)
    elif name == "reconstruction":
      results[name] = reconstruction(generator, prompts, seed, batch)
    elif "binding" in results:
      results[name] = seams_of(results["binding"], run.settings)
    else:
      results[name] = seams(generator, prompts, seed, batch)
    seconds[name] = time.perf_counter() - began
  seconds["evaluate"] = sum(seconds[name] for name in names)
  seconds = {name: round(value, 1) for name, value in seconds.items()}
  results = Results(Conditions(run.step, seed, prompts, run.settings.sampling), seconds, **results)
  with writing(out):
    write_report(out, results, facts_of(run, workdir), Workdir(workdir).metrics / "metrics.jsonl")
  return results.figures()


def _check_out(out: Path):
  try:
    out.mkdir(parents=True, exist_ok=True)
    probe = out / ".writable"
    probe.touch()
    probe.unlink()
  except OSError as error:
    raise UserError(f"cannot write to {out}: {error.strerror}; choose another --out") from None
  read_figures(out)


def seams_of(drawn: Binding, settings: Settings) -> Seams:
  """The seams of pictures that have been drawn already."""
  painted = np.stack([answer.image for answer in drawn.answers["painted"]])
  examples = Examples(drawn.captions, drawn.images)
  return Seams(examples, painted, None, settings.decoder.patch_size, settings.sampling.chunk_rows)


def facts_of(run: Run, workdir: Path) -> dict[str, str]:
  """What the report says about the run, whichever evaluation its figures are of."""
  settings = run.settings
  size, codes = settings.buckets[0], settings.tokenizer.codes
  pixels, tokens = ("×".join(map(str, counts)) for counts in (size.pixels, (size.rows, size.columns)))
  millions = {part: sum(x.size for x in jax.tree.leaves(run.params[part])) / 1e6 for part in run.params}
  return {
    "run": workdir.absolute().name,
    "schedule": f"{settings.total_steps:,} steps: {', '.join(settings.schedule)}",
    "data": f"{settings.data.source.name}, {pixels} pixels, {tokens} tokens of {codes:,} codes",
    "parameters": ", ".join(f"{part} {count:.2f} M" for part, count in millions.items()),
  }


def summary(figures: dict) -> str:
  """The figures as lines for a terminal."""
  lines = []
  if "binding" in figures:
    own = figures["binding"]
    kinds = {"painted": own, **{kind: own[kind] for kind in KINDS if kind in own}}
    lines.append(f"{'binding':<26}{'objects bound':>14}{'pictures right':>16}")
    for kind, shares in kinds.items():
      lines.append(f"  {KINDS[kind]:<24}{percent(shares['objects']):>14}{percent(shares['scenes']):>16}")
    number = own["prompts_by_count"]
    by_count = "  ".join(f"{count}: {percent(share)} of {number[count]}" for count, share in own["by_count"].items())
    lines.append(f"  {'painted, by objects asked':<26}{by_count}")
    lines.append(f"  {counted(own['prompts'], own, 'held-out scenes')}")
  if "reconstruction" in figures:
    own = figures["reconstruction"]
    used = f"{percent(own['codebook_used'])} of the codes used, perplexity {own['perplexity']:,.0f}"
    lines.append(f"{'reconstruction':<26}{own['psnr_db']:>11.2f} dB   {used}")
    lines.append(f"  {counted(own['images'], own, 'held-out images')}")
  if "seams" in figures:
    own = figures["seams"]
    lines.append(f"{'seams':<26}{own['ratio']:>14.3f}   1 is seamless; {own['chunks']} chunks")
    lines.append(f"  {counted(own['prompts'], own)}")
  seconds = {name: value for name, value in figures.get("seconds", {}).items() if name not in SUITES}
  if seconds:
    listed = ", ".join(f"{name} {value:.0f}" for name, value in seconds.items())
    lines.append(f"{'seconds':<26}{sum(seconds.values()):>14.0f}   {listed}")
  return "\n".join(lines)
