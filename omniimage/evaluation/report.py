"""The report of a run: `report.json` with the figures, and `report.html`, one file that shows what they mean.

The page needs nothing else: pictures are PNGs inside it, loss curves SVG.
"""

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from omniimage import strict_json
from omniimage.errors import UserError
from omniimage.evaluation.binding import Answer, Binding
from omniimage.evaluation.curves import curves, read_losses
from omniimage.evaluation.reconstruction import Reconstruction
from omniimage.evaluation.seams import Seams
from omniimage.evaluation.sheets import enlargement, to_uint8
from omniimage.files import write_whole
from omniimage.settings import SamplingSettings

SHOWN = 24  # prompts on the page, and as many again that went wrong
SUITES = ("binding", "reconstruction", "seams")

# The kinds of pictures, in the words of the page.
KINDS = {
  "painted": "sampled tokens, painted",
  "rendering": "sampled tokens, rendered",
  "true_tokens": "true tokens, painted",
  "reconstruction": "true tokens, rendered",
}


@dataclasses.dataclass(frozen=True)
class Conditions:
  """Under which the suites of one evaluation ran; a report may hold those of several."""

  step: int
  seed: int
  asked: int  # prompts, or images; there may be fewer
  sampling: SamplingSettings

  def of(self, suite: str) -> dict:
    """As in report.json, beside the suite's figures. Reconstruction samples nothing."""
    own = dataclasses.asdict(self)
    return {key: value for key, value in own.items() if key != "sampling" or suite != "reconstruction"}


@dataclasses.dataclass(frozen=True)
class Results:
  """What the suites of one evaluation found; None: the suite did not run. `seconds` by suite, and by
  what came before: stages of training, installing."""

  conditions: Conditions
  seconds: Mapping[str, float]
  binding: Binding | None = None
  reconstruction: Reconstruction | None = None
  seams: Seams | None = None

  def figures(self) -> dict:
    """As in report.json: the figures of each suite that ran, with the conditions they are of."""
    ran = {suite: getattr(self, suite) for suite in SUITES if getattr(self, suite) is not None}
    figures = {suite: {**result.figures(), **self.conditions.of(suite)} for suite, result in ran.items()}
    return {**figures, "seconds": dict(self.seconds)}


def read_figures(out: Path) -> dict:
  """The figures of an earlier report in this folder, {} if there is none. UserError if it cannot be read."""
  path = out / "report.json"
  try:
    figures = strict_json.loads(path.read_bytes()) if path.is_file() else {}
    figures = {**figures, "seconds": {**figures.get("seconds", {})}}
    _tables(figures)  # they will be shown beside the new ones
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
  sections = [_facts(facts), *_tables(figures)]
  losses = read_losses(metrics)
  if losses:
    sections.append(f'<h2>Training</h2><div class="curves">{curves(losses)}</div>')
  sections.append(_pictures(results))
  name = escape(facts.get("run", "run"))
  return (
    f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}: report</title>'
    f"<style>{STYLE}</style></head>\n<body><h1>{name}</h1>\n" + "\n".join(sections) + "\n</body></html>\n"
  )


# ---------------------------------------------------------------------------------------------------------- figures


def _tables(figures: Mapping) -> list[str]:
  """A section for each suite that has figures."""
  sections = {"binding": _binding, "reconstruction": _reconstruction, "seams": _seams}
  return [section(figures[suite]) for suite, section in sections.items() if suite in figures]


def _facts(facts: Mapping[str, str]) -> str:
  items = [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items() if name != "run"]
  return f'<dl class="facts">{"".join(items)}</dl>'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  lines = ["".join(f"<th>{escape(cell)}</th>" for cell in header)]
  lines += [f"<th>{escape(first)}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in rest) for first, *rest in rows]
  return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def percent(share: float) -> str:
  return f"{100 * share:.1f} %"


def counted(used: int, figures: Mapping, what: str = "held-out prompts") -> str:
  """How many prompts or images were used, and that no more were found where more were asked for."""
  if "asked" not in figures:  # reports of before, in which some may repeat
    return f"{used} {what}"
  more = f"; {figures['asked']} were asked for, and the test split has no more" if used < figures["asked"] else ""
  return f"{used} {what}, all different{more}"


def _conditions(figures: Mapping) -> str:
  """What a suite's figures are of; reports of before did not say."""
  said = [f"step {figures['step']:,}", f"seed {figures.get('seed', 'not recorded')}"]
  if "sampling" in figures:
    said += [f"{name} {value:g}" for name, value in figures["sampling"].items()]
  return f'<p class="conditions">{escape(", ".join(said))}</p>'


def _binding(figures: Mapping) -> str:
  kinds = {"painted": figures, **{kind: figures[kind] for kind in KINDS if kind in figures}}
  counts, prompts = list(figures["by_count"]), figures.get("prompts_by_count", {})
  of_count = [f"of {count} asked" + (f" ({prompts[count]})" if count in prompts else "") for count in counts]
  header = ["", "objects bound", *of_count, "pictures right", "what was wrong"]
  rows = []
  for kind, own in kinds.items():
    by_count = [percent(own["by_count"][count]) for count in counts]
    mistakes = ", ".join(f"{name} {count}" for name, count in own["mistakes"].items()) or "nothing"
    rows.append([KINDS[kind], percent(own["objects"]), *by_count, percent(own["scenes"]), mistakes])
  used = counted(figures["prompts"], figures, "held-out scenes")
  return (
    f"<h2>Binding</h2>{_conditions(figures)}<p>{used}. Graded cell by cell: an object is bound if its shape, color, "
    "size and cell are right; a picture is right if all its objects are bound and nothing else is there. Painted "
    "pictures are the diffusion decoder’s, rendered ones the tokenizer’s own; what goes wrong with true tokens as well "
    "is not the prior’s fault.</p>"
    f"{_table(header, rows)}"
  )


def _reconstruction(figures: Mapping) -> str:
  header = ["PSNR, mean of images", "PSNR of the mean error", "codes used", "perplexity of the codes"]
  row = [
    f"{figures['psnr_db']:.2f} dB",
    f"{figures['psnr_of_mean_db']:.2f} dB",
    percent(figures["codebook_used"]),
    f"{figures['perplexity']:,.0f}",
  ]
  used = counted(figures["images"], figures, "held-out images")
  return (
    f"<h2>Reconstruction</h2>{_conditions(figures)}<p>{used}. Each went through the tokenizer.</p>"
    f"{_table(['', *header], [['tokenizer', *row]])}"
  )


def _seams(figures: Mapping) -> str:
  if figures["chunks"] == 1:
    return f"<h2>Seams</h2>{_conditions(figures)}<p>The canvas is painted as one chunk: there are no seams.</p>"
  rows = [
    [name, *(f"{figures[key][step]:.1f}" for step in ("chunk_step", "patch_step"))]
    for key, name in (("painted", "painted"), ("true", "true images"))
  ]
  return (
    f"<h2>Seams</h2>{_conditions(figures)}<p>Ratio <b>{figures['ratio']:.3f}</b> over "
    f"{counted(figures['prompts'], figures)}. Painted as {figures['chunks']} chunks of {figures['chunk_rows']} patch "
    "rows: gradient energy across the borders of chunks ÷ across the other borders of patches, over the same ratio of "
    "the true images; 1 is seamless. Root mean square steps, in gray levels of 255:</p>"
    f"{_table(['', 'across chunk borders', 'across other patch borders'], rows)}"
  )


# --------------------------------------------------------------------------------------------------------- pictures


def _pictures(results: Results) -> str:
  """The gallery of this evaluation: the first prompts, nothing chosen, and then those of the rest that went wrong."""
  drawn_with = _conditions(results.conditions.of("pictures"))
  if results.binding is None:
    captions, columns = _plain_columns(results)
    return f"<h2>Pictures</h2>{drawn_with}" + _gallery(captions, columns, range(min(SHOWN, len(captions))))
  binding = results.binding
  graded = {KINDS[kind]: binding.answers[kind] for kind in reversed(KINDS) if kind in binding.answers}
  columns = {"true": binding.images, **graded}
  wrong = [i for i, answer in enumerate(binding.answers["painted"]) if not answer.score.exact]
  rest = [i for i in wrong if i >= SHOWN]
  shown = range(min(SHOWN, len(binding.captions)))
  parts = [
    f"<h2>Pictures</h2>{drawn_with}<p>The first {len(shown)} prompts, nothing chosen. Red frames: what is wrong.</p>",
    _gallery(binding.captions, columns, shown),
  ]
  if rest:
    parts.append(f"<h3>Wrong among the others: {min(len(rest), SHOWN)} of {len(rest)}</h3>")
    parts.append(_gallery(binding.captions, columns, rest[:SHOWN]))
  return "".join(parts)


def _plain_columns(results: Results) -> tuple[Sequence[str], dict[str, np.ndarray]]:
  """Pictures that nothing grades, of the suites that ran; both have the same examples, as far as they go."""
  parts = [part for part in (results.seams, results.reconstruction) if part is not None]
  if not parts:
    return (), {}
  columns = {"true": parts[0].examples.images}
  if results.reconstruction is not None:
    columns[KINDS["reconstruction"]] = results.reconstruction.reconstructions
  if results.seams is not None and results.seams.images is not None:
    columns |= {KINDS["rendering"]: results.seams.rendering, KINDS["painted"]: results.seams.images}
  return parts[0].examples.captions, columns


def _gallery(captions: Sequence[str], columns: Mapping[str, Sequence], indices: Sequence[int]) -> str:
  header = "".join(f"<th>{escape(title)}</th>" for title in columns)
  rows = []
  for i in indices:
    cells = "".join(f"<td>{_picture(shown[i], f'{title}: {captions[i]}')}</td>" for title, shown in columns.items())
    rows.append(f'<tr><td class="caption"><span>{i}</span>{escape(captions[i])}</td>{cells}</tr>')
  return f'<table class="gallery"><thead><tr><th></th>{header}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _picture(shown: Answer | np.ndarray, alternative: str) -> str:
  """An image; of an answer also red frames round the cells that are wrong, and what is wrong with them."""
  if not isinstance(shown, Answer):
    return _image(shown, alternative)
  side, frames, notes = 100 / shown.graded.scene.grid, [], []
  for fault in shown.faults:
    row, column = fault.cell
    frames.append(f'<i style="left:{side * column:g}%;top:{side * row:g}%;width:{side:g}%;height:{side:g}%"></i>')
    notes.append(f"<li>row {row + 1}, column {column + 1}: {escape(fault.what)}</li>")
  listed = f"<ul>{''.join(notes)}</ul>" if notes else ""
  return f'<div class="frames">{_image(shown.image, alternative)}{"".join(frames)}</div>{listed}'


def _image(image: np.ndarray, alternative: str) -> str:
  height, width, _ = image.shape
  factor = enlargement(max(height, width))
  file = io.BytesIO()
  Image.fromarray(to_uint8(image)).save(file, "PNG")
  data = base64.b64encode(file.getvalue()).decode()
  return (
    f'<img src="data:image/png;base64,{data}" width="{factor * width}" height="{factor * height}" '
    f'alt="{escape(alternative)}">'
  )


STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; color: #202024; background: #fff; max-width: 1100px; margin: 32px auto;
  padding: 0 24px; }
h1 { font-size: 24px; margin: 0 0 8px; }
h2 { font-size: 18px; margin: 36px 0 8px; padding-top: 12px; border-top: 1px solid #d8d8dc; }
h3 { font-size: 14px; margin: 20px 0 6px; }
.conditions { color: #70707a; }
p { max-width: 76ch; margin: 6px 0 12px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 18px 4px 0; text-align: left; vertical-align: top; border-bottom: 1px solid #ececf0; }
th { font-weight: 600; }
td, th:first-child { white-space: nowrap; }
td:last-child { white-space: normal; }
tr:first-child th, thead th { color: #70707a; font-weight: 400; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 0; }
.facts dt { color: #70707a; }
.facts dd { margin: 0; }
.gallery td, .gallery th { padding: 8px 10px 8px 0; white-space: normal; vertical-align: top; }
.gallery th { width: 128px; vertical-align: bottom; }
.gallery .caption { width: 220px; padding-right: 16px; }
.gallery .caption span { float: left; min-width: 26px; color: #a0a0a8; }
.gallery img { display: block; image-rendering: pixelated; outline: 1px solid #d8d8dc; }
.gallery ul { list-style: none; margin: 6px 0 0; padding: 0; max-width: 128px; color: #c00020; font-size: 12px;
  line-height: 1.35; }
.frames { position: relative; width: max-content; }
.frames i { position: absolute; box-sizing: border-box; border: 3px solid #e00028; }
.curves { display: flex; flex-wrap: wrap; gap: 12px 24px; }
svg text { font: 11px system-ui, sans-serif; fill: #70707a; }
svg .title { font-size: 13px; font-weight: 600; fill: #202024; }
svg .end { text-anchor: end; }
svg .middle { text-anchor: middle; }
svg .grid { stroke: #ececf0; }
svg polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
@media print { body { margin: 0; } }
"""
