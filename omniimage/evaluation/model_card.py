"""What whoever is given a model wants to know of it, as the README.md of its folder."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omniimage import strict_json
from omniimage.commands import command
from omniimage.data.sources.records import weighted
from omniimage.evaluation.evaluate import facts_of, summary
from omniimage.evaluation.report import read_figures
from omniimage.paths import anywhere
from omniimage.workdir import Run, Workdir

PICTURE = "samples.png"  # beside it, if there is one
BUILTIN = {"scenes": "drawn by omniimage itself", "emoji": "licences in the NOTICE of omniimage"}
PROMPT_OF = {"scenes": "a large red star in the top left", "emoji": "a red apple"}


def model_card(run: Run, workdir: Workdir, name: str, licence: str, has_picture: bool) -> str:
  """Markdown. UserError where the run's report.json cannot be read.

  Args:
    name: of the folder.
    licence: of the parameters; empty where nobody has said one.
    has_picture: whether `PICTURE` lies beside it.
  """
  figures, settings = read_figures(workdir.path), run.settings
  facts = facts_of(run, workdir.path)
  measured = {suite: own for suite, own in figures.items() if suite != "seconds"}
  prompt = PROMPT_OF.get(settings.data.source.name, "a red star")
  return "\n".join([
    "---",
    "library_name: omniimage",
    "pipeline_tag: text-to-image",
    *([f"license: {licence}"] if licence else []),
    "---",
    "",
    f"# {name}",
    "",
    f"A model of omniimage, system {settings.system}, after {run.step:,} steps of training.",
    "",
    *([f"![What it draws]({PICTURE})", ""] if has_picture else []),
    "```sh",
    f'{command("sample")} --workdir={name} --prompt="{prompt}" --out=drawn.png',
    "```",
    *(_in_python(name, prompt) if settings.system == "omni" else []),
    "",
    "| | |",
    "| --- | --- |",
    *(f"| {key} | {value} |" for key, value in {**facts, **_training(run)}.items()),
    *(f"| learnt from | {line} |" for line in learnt_from(dataclasses.asdict(settings.data.source))),
    "",
    "## Figures",
    "",
    *(["```", summary(measured), "```"] if measured else ["Not evaluated."]),
    "",
    "## Licence",
    "",
    licence or "Nobody has said what these parameters may be used for.",
    "",
  ])  # fmt: skip


def _in_python(name: str, prompt: str) -> list[str]:
  return [
    "",
    "```python",
    "from omniimage.sampling.generate import Generator",
    "",
    f'generator = Generator.from_pretrained("{name}")',
    f'drawing = generator.draw("{prompt}", n=4)  # images (4, H, W, 3) in [-1, 1]',
    "```",
  ]


def _training(run: Run) -> dict[str, str]:
  seconds = ", ".join(f"{stage} {value / 60:.1f}" for stage, value in run.seconds.items())
  return {"minutes of training": seconds} if seconds else {}


def learnt_from(source: Mapping[str, Any]) -> list[str]:
  """A line of each data set in a source's settings: its name, and what it may be used for where that was said. Where it
  lies is nobody's business."""
  return sorted(set(_data(source)))


def _data(source: Mapping[str, Any]) -> Iterator[str]:
  name, path = source.get("name"), source.get("path")
  if name in BUILTIN:
    yield f"{name}: {BUILTIN[name]}"
  elif isinstance(path, str):
    for folder, _ in weighted(path) or [(path, 1.0)]:
      told = _described(anywhere(folder) / "dataset.json")
      yield f"{told.get('name') or name}: licence {told.get('licence') or 'not given'}"
  for below in source.values():
    if isinstance(below, Mapping):
      yield from _data(below)


def _described(file: Path) -> Mapping[str, Any]:
  """What a prepared data set says of itself; nothing where it is gone."""
  try:
    told = strict_json.loads(file.read_bytes())
  except (OSError, ValueError):
    return {}
  return told if isinstance(told, dict) else {}
