"""What the cells of `benchmarks.binding` say together: shares with intervals, sizes, mistakes, and tables of them.

Axes: D draws of the bootstrap, S seeds, n scenes.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.binding_cells import SPLITS, Cell
from omniimage.data.scenes.grader import MISTAKES
from omniimage.data.text import TextTokenizer
from omniimage.systems import open_system

DRAWS = 2000  # of the bootstrap
LEVEL = 0.95  # that an interval covers
EQUAL = 0.03  # systems are compared at parameters and training FLOPs that differ by no more
SHOWN = (1, 2, 5, 10, 15, 20)  # numbers of objects in the tables; all are in the figures


def interval(right: np.ndarray, of: int, seed: int = 0) -> tuple[float, float, float]:
  """A share and its interval, by a bootstrap over scenes and seeds (percentiles; Efron 1979).

  Every seed draws the same scenes, so both are drawn anew, crossed: the seeds, and the scenes for all of them alike
  (Owen & Eckles 2012). With one seed the interval is of the scenes alone.

  Args:
    right: (S, n) of each scene, out of `of`.
  """
  rng, (seeds, scenes) = np.random.default_rng(seed), right.shape
  weights_DS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS)
  weights_Dn = rng.multinomial(scenes, np.full(scenes, 1 / scenes), size=DRAWS)
  shares_D = np.einsum("ds,sn,dn->d", weights_DS, right / of, weights_Dn) / (seeds * scenes)
  low, high = np.quantile(shares_D, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
  return float(np.mean(right) / of), float(low), float(high)


def figures(cells: Sequence[Cell]) -> dict[str, Any]:
  """What is known by now. "missing" names what is not: cells, or pieces of them."""
  by_system = defaultdict(list)
  for cell in cells:
    by_system[cell.system].append(cell)
  sizes = {name: size_of(own[0]) for name, own in by_system.items()}
  first = next(iter(sizes.values()))
  systems = {}
  for name, own in by_system.items():
    size = sizes[name]
    ratios = {key: size[key] / first[key] for key in ("parameters", "training_flops")}
    systems[name] = {
      **size,
      "of_first": ratios,
      "equal": all(abs(ratio - 1) <= EQUAL for ratio in ratios.values()),
      "tuning": {str(cell.seed): tuned for cell in own if (tuned := _piece(cell, "tuning"))},
      **{split: _by_number(own, split) for split in SPLITS},
    }
  missing = [f"{cell.name}/{piece.stem}" for cell in cells for piece in cell.pieces() if not piece.exists()]
  return {"systems": systems, "commits": _commits(cells), "missing": missing}


def size_of(cell: Cell) -> dict[str, Any]:
  """Parameters by part and of all, and the FLOPs of all the stages' updates: of what a model needs, whatever a program
  does."""
  settings = cell.settings
  system = open_system(settings, TextTokenizer.load(settings.data.vocabulary).size)
  parts = {
    part: sum(leaf.size for leaf in jax.tree.leaves(own))
    for part, own in jax.eval_shape(system.init, jax.random.key(0)).items()
  }
  stages = {name: settings.stages[name] for name in settings.schedule}
  flops = {name: stage.steps * system.step_flops(stage, settings.buckets[0]) for name, stage in stages.items()}
  return {
    "parameters": sum(parts.values()),
    "parameters_by_part": parts,
    "training_flops": sum(flops.values()),
    "flops_by_stage": flops,
  }


def _by_number(cells: Sequence[Cell], split: str) -> list[dict]:
  """Of each number of objects that some cell has been graded on, over the seeds that have been."""
  rows = []
  for number in sorted({int(piece.stem.split("-")[1]) for c in cells for piece in c.pieces() if split in piece.stem}):
    graded = {cell.seed: found for cell in cells if (found := _piece(cell, f"{split}-{number:02d}"))}
    if graded:
      bound, whole = (np.array([own[key] for own in graded.values()]) for key in ("bound", "whole"))
      mistakes = sum((Counter(own["mistakes"]) for own in graded.values()), Counter())
      rows.append(
        {
          "objects": number,
          "scenes": bound.shape[1],
          "seeds": list(graded),
          "bound": interval(bound, number),
          "whole": interval(whole, 1),
          "mistakes": {kind: mistakes[kind] for kind in MISTAKES if mistakes[kind]},
        }
      )
  return rows


def _piece(cell: Cell, name: str) -> dict | None:
  path = cell.place / f"{name}.json"
  return json.loads(path.read_text()) if path.exists() else None


def _commits(cells: Sequence[Cell]) -> list[str]:
  """All that some of it was made at."""
  found = {
    piece["commit"] for cell in cells for path in cell.place.glob("*.json") if (piece := json.loads(path.read_text()))
  }
  return sorted(found)


# -------------------------------------------------------------------------------------------------------------- tables


def tables(found: Mapping[str, Any]) -> str:
  """Sizes, shares and mistakes, in Markdown."""
  systems = found["systems"]
  parts = [sizes(systems)]
  for split, said in (("test", "held-out scenes"), ("unseen", "pairs of color and shape never seen")):
    numbers = [n for n in SHOWN if any(_row(row[split], n) for row in systems.values())]
    for key, what in (("bound", "objects bound"), ("whole", "scenes whole")):
      header = [f"{what}, %, {said}", *(f"of {number}" for number in numbers)]
      rows = ([name, *(_share(_row(row[split], n), key) for n in numbers)] for name, row in systems.items())
      parts.append(_table(header, rows) if numbers else "")
  rows = ([name, *_mistakes(row["test"])] for name, row in systems.items())
  parts.append(_table(["mistakes a hundred objects", *MISTAKES], rows))
  if len(found["commits"]) > 1:
    parts.append(f"Made at several commits: {', '.join(found['commits'])}.")
  if found["missing"]:
    parts.append(f"Not there yet: {len(found['missing'])} pieces, from {found['missing'][0]} on.")
  return "\n\n".join(filter(None, parts)) + "\n"


def sizes(systems: Mapping[str, Mapping]) -> str:
  """Parameters and FLOPs, and which systems differ too much in them."""
  header = ["", "parameters", "of the first", "training FLOPs", "of the first"]
  unequal = [name for name, row in systems.items() if not row["equal"]]
  said = f"\n\nNot within {EQUAL:.0%} of the first: {', '.join(unequal)}." if unequal else ""
  return _table(header, map(_size_row, systems.items())) + said


def _table(header: Sequence[str], rows) -> str:
  lines = [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
  return "\n".join(lines)


def _size_row(item) -> list[str]:
  name, row = item
  parameters, flops = (f"{100 * (row['of_first'][key] - 1):+.1f} %" for key in ("parameters", "training_flops"))
  return [name, f"{row['parameters']:,}", parameters, f"{row['training_flops']:.3g}", flops]


def _row(rows: Sequence[Mapping], number: int) -> Mapping | None:
  return next((row for row in rows if row["objects"] == number), None)


def _share(row: Mapping | None, key: str) -> str:
  if row is None:
    return "–"
  share, low, high = (100 * value for value in row[key])
  return f"{share:.1f} ({low:.1f}–{high:.1f})"


def _mistakes(rows: Sequence[Mapping]) -> list[str]:
  """Of all numbers of objects together."""
  objects = sum(row["objects"] * row["scenes"] * len(row["seeds"]) for row in rows)
  counts = sum((Counter(row["mistakes"]) for row in rows), Counter())
  return [f"{100 * counts[kind] / objects:.2f}" if objects else "–" for kind in MISTAKES]
