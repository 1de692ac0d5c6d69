"""The report of a run: `report.json` with the figures, and `report.html`, one file that shows what they mean.

The page needs nothing else: pictures are PNGs inside it, loss curves SVG.
"""

import dataclasses
from collections.abc import Mapping
from html import escape
from pathlib import Path

from omniimage import strict_json
from omniimage.errors import UserError
from omniimage.evaluation import markup
from omniimage.evaluation.curves import curves, read_losses
from omniimage.evaluation.markup import gallery
from omniimage.evaluation.suites import SUITES
from omniimage.evaluation.suites.suite import Pictures, Result
from omniimage.files import write_whole
from omniimage.settings import SamplingSettings

SHOWN = 24  # prompts on the page, and as many again that went wrong


@dataclasses.dataclass(frozen=True)
class Conditions:
  """Under which the suites of one evaluation ran; a report may hold those of several."""

  step: int
  seed: int
  asked: int  # prompts, or images; there may be fewer
  sampling: SamplingSettings

  def figures(self, samples: bool = True) -> dict:
    """As in report.json, beside a suite's figures; without the sampling of one that samples nothing."""
    own = dataclasses.asdict(self)
    return {key: value for key, value in own.items() if key != "sampling" or samples}


@dataclasses.dataclass(frozen=True)
class Results:
  """What the suites of one evaluation found, by name. `seconds` by suite, and by what came before: stages of training,
  installing."""

  conditions: Conditions
  seconds: Mapping[str, float]
  found: Mapping[str, Result] = dataclasses.field(default_factory=dict)

  def figures(self) -> dict:
    """As in report.json: the figures of each suite that ran, with the conditions they are of."""
    figures = {
      name: {**self.found[name].figures(), **self.conditions.figures(suite.samples)}
      for name, suite in SUITES.items()
      if name in self.found
    }
    return {**figures, "seconds": dict(self.seconds)}


def read_figures(out: Path) -> dict:
  """The figures of an earlier report in this folder, {} if there is none. UserError if it cannot be read."""
  path = out / "report.json"
  try:
    figures = strict_json.loads(path.read_bytes()) if path.is_file() else {}
    figures = {**figures, "seconds": {**figures.get("seconds", {})}}
    _sections(figures)  # they will be shown beside the new ones
    return figures
  except (OSError, ValueError, TypeError, AttributeError, KeyError):
    raise UserError(f"{path} is not a report that this one could be added to; delete it or change --out") from None


def merged(earlier: Mapping, new: Mapping) -> dict:
  """The new figures, and the earlier ones of suites that did not run again."""
  figures = {**earlier, **new, "seconds": {**earlier.get("seconds", {}), **new["seconds"]}}
  order = [*SUITES, *(key for key in figures if key not in (*SUITES, "seconds")), "seconds"]
  return {key: figures[key] for key in order if key in figures}


def write_report(out: Path, results: Results, facts: Mapping[str, str], metrics: Path) -> dict:
  """Writes both files and returns the figures.

  Args:
    out: folder, which exists. Figures of other suites in an earlier report.json stay.
    facts: about the run, shown as they are.
    metrics: metrics.jsonl of the run; without it there are no curves.
  """
  figures = merged(read_figures(out), results.figures())
  write_whole(out / "report.json", (strict_json.dumps(figures, indent=2) + "\n").encode())
  write_whole(out / "report.html", page(figures, results, facts, metrics).encode())
  return figures


def page(figures: Mapping, results: Results, facts: Mapping[str, str], metrics: Path) -> str:
  facts = {**facts, "seconds": ", ".join(f"{suite} {value:.0f}" for suite, value in figures["seconds"].items())}
  sections = [_facts(facts), *_sections(figures)]
  losses = read_losses(metrics)
  if losses:
    sections.append(f'<h2>Training</h2><div class="curves">{curves(losses)}</div>')
  sections.append(_pictures(results))
  return markup.page(facts.get("run", "run"), sections)


# ---------------------------------------------------------------------------------------------------------- figures


def _sections(figures: Mapping) -> list[str]:
  """A section for each suite that has figures."""
  return [
    f"<h2>{escape(name.capitalize())}</h2>{_conditions(figures[name])}{suite.section(figures[name])}"
    for name, suite in SUITES.items()
    if name in figures
  ]


def _facts(facts: Mapping[str, str]) -> str:
  items = [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items() if name != "run"]
  return f'<dl class="facts">{"".join(items)}</dl>'


def _conditions(figures: Mapping) -> str:
  """What a suite's figures are of; reports of before did not say."""
  said = [f"step {figures['step']:,}", f"seed {figures.get('seed', 'not recorded')}"]
  if "sampling" in figures:
    said += [
      f"{name} {value if isinstance(value, str) else f'{value:g}'}" for name, value in figures["sampling"].items()
    ]
  return f'<p class="conditions">{escape(", ".join(said))}</p>'


# --------------------------------------------------------------------------------------------------------- pictures


def _pictures(results: Results) -> str:
  """The galleries of this evaluation, one for each set of examples; empty if there is nothing to look at."""
  galleries = [_gallery(same) for same in _by_examples(results)]
  return "".join([f"<h2>Pictures</h2>{_conditions(results.conditions.figures())}", *galleries]) if galleries else ""


def _by_examples(results: Results) -> list[list[Pictures]]:
  """What the suites that ran show, that of the same examples together."""
  groups = {}
  for name, suite in SUITES.items():
    if name not in results.found or set(suite.behind) & set(results.found):
      continue
    pictures = results.found[name].pictures()
    if pictures is not None:
      groups.setdefault((pictures.captions, pictures.true.tobytes()), []).append(pictures)
  return list(groups.values())


def _gallery(same: list[Pictures]) -> str:
  """The first examples, nothing chosen, and then those of the rest that went wrong."""
  captions, columns = same[0].captions, {"true": same[0].true}
  for pictures in same:
    columns |= {title: shown for title, shown in pictures.columns.items() if title not in columns}
  shown = range(min(SHOWN, len(captions)))
  graded = [set(pictures.wrong) for pictures in same if pictures.wrong is not None]
  if not graded:
    return gallery(captions, columns, shown)
  rest = sorted(i for i in set.union(*graded) if i >= SHOWN)
  parts = [
    f"<p>The first {len(shown)} prompts, nothing chosen. Red frames: what is wrong.</p>",
    gallery(captions, columns, shown),
  ]
  if rest:
    parts.append(f"<h3>Wrong among the others: {min(len(rest), SHOWN)} of {len(rest)}</h3>")
    parts.append(gallery(captions, columns, rest[:SHOWN]))
  return "".join(parts)
