"""Runs side by side on one page, `compare.html`: in which settings they differ, their figures, their losses, and what
each draws of the same captions.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from omniimage import strict_json
from omniimage.commands import command
from omniimage.errors import UserError
from omniimage.evaluation.curves import Series, chart, read_losses
from omniimage.evaluation.evaluate import check_out, facts_of
from omniimage.evaluation.held_out import drawn, held_out
from omniimage.evaluation.markup import Marked, Picture, gallery, page, table
from omniimage.evaluation.suites import SUITES
from omniimage.files import write_whole
from omniimage.paths import writing
from omniimage.sampling.drawing import Draws
from omniimage.sampling.prompts import read_prompt
from omniimage.settings import Settings
from omniimage.systems import load_run, open_generator, open_system
from omniimage.workdir import Workdir

COLORS = ("#0072b2", "#d55e00", "#00835f", "#b8508f", "#8a6d00", "#555555", "#56a0d8", "#a03020")  # of the runs
ABSENT = "–"
UNDRAWN = 128  # gray


def compare(
  workdirs: Sequence[Path], out: Path, prompts: int, seed: int, sampled: Callable[[Settings], Settings], batch: int = 64
) -> Path:
  """Writes `compare.html` into the folder `out`.

  Args:
    workdirs: of the runs, two and at most as many as `COLORS`.
    prompts: held-out captions of the first run that are drawn by all, fewer if it has fewer.
    seed: of the captions' words and the noise.
    sampled: settings of a run → those that it draws with.

  Raises UserError, before anything is drawn, where one of them is no run or nothing can be written.
  """
  _check(workdirs)
  found = [Workdir(path) for path in workdirs]
  configs, reports = [run.read_config()[0] for run in found], [read_report(run.path) for run in found]
  check_out(out)
  names, facts, captions, columns = titles([run.path for run in found]), [], None, []
  for workdir in found:  # one after another: their parameters may not fit together
    run = load_run(workdir.path)
    system = open_system(sampled(run.settings), run.text_tokenizer.size)
    generator = open_generator(system, run.params, run.text_tokenizer)
    facts.append({**facts_of(run, workdir.path), "step": f"{run.step:,}"})
    captions = captions or held_out(generator, prompts, seed).captions
    columns.append(drawn_where_it_can(generator, captions, seed, batch))
  numbered = [f"{number} {name}" for number, name in enumerate(names, 1)]
  sections = [
    table(["", *numbered], _rows([{k: v for k, v in own.items() if k != "run"} for own in facts])),
    "<h2>Settings that differ</h2>" + _settings(numbered, configs),
    "<h2>Figures</h2>" + _figures(numbered, reports),
    _curves([read_losses(run.metrics / "metrics.jsonl") for run in found]),
    f"<h2>Pictures</h2><p>The first {len(captions)} held-out captions of {escape(names[0])}, nothing chosen.</p>"
    + gallery(captions, dict(zip(numbered, columns)), range(len(captions))),
  ]
  path = out / "compare.html"
  with writing(out):
    write_whole(path, page(" and ".join(names), sections).encode())
  return path


def _check(workdirs: Sequence[Path]):
  if not 2 <= len(workdirs) <= len(COLORS):
    raise UserError(
      f"--compare takes two to {len(COLORS)} runs, as in --compare=runs/a,runs/b; there are {len(workdirs)}"
    )
  resolved = [path.resolve() for path in workdirs]
  for place, path in enumerate(resolved):
    if path in resolved[:place]:
      raise UserError(f"--compare: {workdirs[place]} is there twice")


def titles(paths: Sequence[Path]) -> list[str]:
  """What tells paths apart: as many of their last parts as that takes."""
  longest = max(len(path.parts) for path in paths)
  ends = ([Path(*path.parts[-length:]).as_posix() for path in paths] for length in range(1, longest + 1))
  return next(names for names in ends if len(set(names)) == len(names))


def read_report(workdir: Path) -> dict[str, Any]:
  """The figures of a run by suite; {} where it has not been evaluated. UserError if they cannot be read."""
  path = workdir / "report.json"
  try:
    figures = strict_json.loads(path.read_bytes()) if path.is_file() else {}
  except (OSError, ValueError):
    figures = None
  if not isinstance(figures, dict):
    raise UserError(f"{path} is not a report; {command('evaluate')} --workdir={workdir} writes one")
  return {name: own for name, own in figures.items() if name in SUITES and isinstance(own, dict)}


def flattened(value: Any, name: str = "") -> dict[str, Any]:
  """{"a": {"b": 1}} → {"a.b": 1}."""
  if not isinstance(value, Mapping):
    return {name: value}
  below = (flattened(inner, f"{name}.{key}" if name else str(key)) for key, inner in value.items())
  return dict(itertools.chain.from_iterable(own.items() for own in below))


def drawn_where_it_can(generator: Draws, captions: Sequence[str], seed: int, batch: int) -> list[Picture]:
  """A picture of each caption; a gray one with the reason below where the run cannot read it."""
  reasons = {i: reason for i, caption in enumerate(captions) if (reason := _unread(caption, generator))}
  read = [i for i in range(len(captions)) if i not in reasons]
  images = drawn(generator, [captions[i] for i in read], seed, batch).images if read else ()
  gray = np.full((*generator.settings.buckets[0].pixels, 3), UNDRAWN, np.uint8)
  pictures = dict(zip(read, images)) | {i: Marked(gray, (), (reason,)) for i, reason in reasons.items()}
  return [pictures[i] for i in range(len(captions))]


def _unread(caption: str, generator: Draws) -> str:
  """Why a run cannot draw a caption; empty if it can."""
  try:
    read_prompt(caption, generator.settings, generator.text_tokenizer)
  except UserError as error:
    return str(error)
  return ""


# ------------------------------------------------------------------------------------------------------------ tables


def _settings(names: Sequence[str], configs: Sequence[Mapping]) -> str:
  """Of config.json what is not the same in all runs."""
  flat = [{key: json.dumps(value) for key, value in flattened(config).items()} for config in configs]
  rows = [row for row in _rows(flat) if len(set(row[1:])) > 1]
  return table(["", *names], rows) if rows else "<p>None.</p>"


def _figures(names: Sequence[str], reports: Sequence[Mapping]) -> str:
  """A table for each suite that measured some of them."""
  parts = [
    f"<p>{escape(name)} has no figures: {command('evaluate')} measures it.</p>"
    for name, own in zip(names, reports)
    if not own
  ]
  for suite in SUITES:
    measured = [flattened(report.get(suite, {})) for report in reports]
    if any(measured):
      figures = [{key: _number(value) for key, value in own.items()} for own in measured]
      parts.append(f"<h3>{escape(suite)}</h3>{table(['', *names], _rows(figures))}")
  return "".join(parts)


def _rows(columns: Sequence[Mapping[str, str]]) -> list[tuple[str, ...]]:
  """A row for each key that some column has, in the order of the first that has it."""
  keys = dict.fromkeys(key for column in columns for key in column)
  return [(key, *(column.get(key, ABSENT) for column in columns)) for key in keys]


def _number(value: Any) -> str:
  return f"{value:.4g}" if isinstance(value, float) else str(value)


# ------------------------------------------------------------------------------------------------------------ curves


def _curves(runs: Sequence[Mapping[str, Series]]) -> str:
  """A chart for each term of each stage, a line a run, over the steps of the stage."""
  terms = dict.fromkeys((stage, term) for losses in runs for stage, series in losses.items() for term in series)
  charts = []
  for stage, term in terms:
    lines = {
      str(number): _from_its_beginning(losses[stage], term)
      for number, losses in enumerate(runs, 1)
      if term in losses.get(stage, {})
    }
    charts.append(chart(f"{stage}: {term}", lines, dict(zip(map(str, itertools.count(1)), COLORS))))
  if not charts:
    return ""
  return f'<h2>Training</h2><p>Steps are those of the stage.</p><div class="curves">{"".join(charts)}</div>'


def _from_its_beginning(series: Series, term: str) -> list[tuple[float, float]]:
  first = min(step for points in series.values() for step, _ in points)
  return [(step - first, value) for step, value in series[term]]
