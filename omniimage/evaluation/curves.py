"""Loss curves as inline SVG, from the lines of a run's metrics.jsonl."""

import itertools
import math
from collections.abc import Mapping
from html import escape
from pathlib import Path

from omniimage.training.metrics import read_metrics

Series = dict[str, list[tuple[float, float]]]  # (step, value) by the name of the line

COLORS = {"loss": "#555555", "text": "#0072b2", "image": "#d55e00", "diffusion": "#00835f", "pixel": "#b8508f"}
LARGEST = 1e100  # number that a scale can be made for; no float32 is larger
MAX_POINTS = 200  # a line; longer ones are averaged over as many intervals
WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 104, 30, 34  # margins: ticks, the lines' names, title, steps


def read_losses(path: Path) -> dict[str, Series]:
  """Loss terms by stage, in the order of training. Empty if there is no file; lines cut short are left out."""
  stages: dict[str, Series] = {}
  for entry in read_metrics(path):
    stage = stages.setdefault(entry["stage"], {})
    for name in COLORS:
      value = entry.get(name)
      if isinstance(value, float) and abs(value) < LARGEST and 0 <= entry["step"] < LARGEST:
        stage.setdefault(name, []).append((entry["step"], value))
  return {stage: _without_sum_of_one(series) for stage, series in stages.items() if series}


def curves(stages: dict[str, Series]) -> str:
  """One SVG a stage."""
  return "\n".join(chart(stage, series) for stage, series in stages.items())


def chart(title: str, series: Series, colors: Mapping[str, str] = COLORS) -> str:
  """Lines over steps, in the colors of their names; the scale of values is logarithmic where they span more than a
  factor of ten."""
  series = {name: thinned(points) for name, points in series.items()}
  steps = [step for points in series.values() for step, _ in points]
  values = [value for points in series.values() for _, value in points]
  logarithmic = min(values) > 0 and max(values) > 10 * min(values)
  ticks = log_ticks(min(values), max(values)) if logarithmic else linear_ticks(min(values), max(values))

  def x(step: float) -> float:
    return LEFT + (step - min(steps)) / (max(steps) - min(steps) or 1) * (WIDTH - LEFT - RIGHT)

  def y(value: float) -> float:
    low, high, value = (math.log(v) if logarithmic else v for v in (ticks[0], ticks[-1], value))
    return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

  parts = [f'<text x="{LEFT}" y="16" class="title">{escape(title)}</text>']
  for tick in ticks:
    parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" class="grid"/>')
    parts.append(f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" class="end">{tick:g}</text>')
  for step, side in ((min(steps), "start"), (max(steps), "end")):
    parts.append(f'<text x="{x(step):.1f}" y="{HEIGHT - BOTTOM + 18}" class="{side}">{step:,.0f}</text>')
  middle = (LEFT + WIDTH - RIGHT) / 2
  parts.append(f'<text x="{middle}" y="{HEIGHT - BOTTOM + 18}" class="middle">step</text>')
  heights = _apart({name: y(points[-1][1]) for name, points in series.items()})
  for name, points in series.items():
    line, color = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points), colors[name]
    place = f'x="{WIDTH - RIGHT + 8}" y="{heights[name] + 4:.1f}"'
    parts.append(f'<polyline points="{line}" stroke="{color}"/>')
    parts.append(f'<text {place} style="fill:{color}">{name} {points[-1][1]:.3g}</text>')
  size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
  return f'<svg {size} role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
  """At most MAX_POINTS points: the means of as many intervals."""
  if len(points) <= MAX_POINTS:
    return points
  edges = [i * len(points) // MAX_POINTS for i in range(MAX_POINTS + 1)]
  groups = [points[start:stop] for start, stop in itertools.pairwise(edges)]
  return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def linear_ticks(low: float, high: float) -> list[float]:
  """Round numbers that enclose [low, high], about five."""
  span = (high - low) or abs(high) or 1.0
  step = 10 ** math.floor(math.log10(span / 4))
  step *= next(factor for factor in (1, 2, 5, 10) if span / (factor * step) <= 5)
  first, last = math.floor(low / step), math.ceil(high / step)
  return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
  """1, 2 and 5 times powers of ten that enclose [low, high]; over more than three decades the powers alone."""
  factors = (1,) if high / low > 1000 else (1, 2, 5)
  first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
  every = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
  start = max(i for i, tick in enumerate(every) if tick <= low * (1 + 1e-9))
  stop = min(i for i, tick in enumerate(every) if tick >= high * (1 - 1e-9))
  return every[start : stop + 1]


def _without_sum_of_one(series: Series) -> Series:
  """A loss of one term says nothing that the term does not."""
  return {name: points for name, points in series.items() if name != "loss" or len(series) != 2}


def _apart(heights: dict[str, float], gap: float = 15) -> dict[str, float]:
  """Moves labels down until they no longer overlap."""
  placed, lowest = {}, -math.inf
  for name, height in sorted(heights.items(), key=lambda item: item[1]):
    lowest = max(height, lowest + gap)
    placed[name] = lowest
  return placed
