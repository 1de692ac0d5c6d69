"""The curves of `benchmarks.binding` as one SVG: legible on a light and on a dark page, and without any script."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

# Okabe & Ito's, each of a middle brightness: contrast with white and with black.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#b8508f", "#a87d00", "#6b7cff")
GRAY = "#808080"
WIDTH, HEIGHT = 400, 300  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 30, 40
LEGEND = 20  # a line of it
PANELS = (("bound", "objects bound"), ("whole", "scenes exactly right"))
TICKS = (0, 25, 50, 75, 100)


def plot(systems: Mapping[str, Mapping[str, Any]]) -> str:
  """Shares against the number of objects, a panel each for objects and scenes. Bands are the intervals; dashed lines,
  without a band, are of pairs that were never seen."""
  numbers = [row["objects"] for own in systems.values() for split in ("test", "unseen") for row in own[split]]
  low, high = min(numbers, default=1), max(numbers, default=1)
  panels = "".join(
    f'<g transform="translate({WIDTH * place} 0)">{_panel(systems, key, title, low, high)}</g>'
    for place, (key, title) in enumerate(PANELS)
  )
  lines = [*zip(systems, COLORS), ("dashed: colors of shapes never seen together", GRAY)]
  legend = "".join(_legend(line, name, color) for line, (name, color) in enumerate(lines))
  width, height = WIDTH * len(PANELS), HEIGHT + LEGEND * len(lines) + 8
  title = "Objects bound and scenes exactly right, by the number of objects asked for"
  return (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
    f'font-family="system-ui, sans-serif" font-size="13" fill="{GRAY}" role="img"><title>{title}</title>'
    f"{panels}{legend}</svg>\n"
  )


def _panel(systems: Mapping[str, Mapping], key: str, title: str, low: int, high: int) -> str:
  def x(number: float) -> float:
    return LEFT + (number - low) / (high - low or 1) * (WIDTH - LEFT - RIGHT)

  def y(share: float) -> float:
    return TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)

  parts = [f'<text x="{LEFT}" y="18">{escape(title)}, %</text>']
  for tick in TICKS:
    height = y(tick / 100)
    parts.append(
      f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}" stroke="{GRAY}" opacity=".3"/>'
      f'<text x="{LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{tick}</text>'
    )
  for number in sorted({low, high, *range(5, high, 5)} & set(range(low, high + 1))):
    parts.append(f'<text x="{x(number):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{number}</text>')
  parts.append(
    f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - BOTTOM + 34}" text-anchor="middle">objects asked for</text>'
  )
  for (_, own), color in zip(systems.items(), COLORS):
    parts.append(_band(own["test"], key, x, y, color))
    parts.append(_line(own["unseen"], key, x, y, f'stroke="{color}" stroke-width="1.5" stroke-dasharray="4 4"'))
    parts.append(_line(own["test"], key, x, y, f'stroke="{color}" stroke-width="2"'))
  return "".join(parts)


def _line(rows: Sequence[Mapping], key: str, x: Callable, y: Callable, style: str) -> str:
  points = " ".join(f"{x(row['objects']):.1f},{y(row[key][0]):.1f}" for row in rows)
  return f'<polyline points="{points}" fill="none" {style}/>' if points else ""


def _band(rows: Sequence[Mapping], key: str, x: Callable, y: Callable, color: str) -> str:
  """From the lower ends of the intervals to the upper ones and back."""
  ends = [*((row, 1) for row in rows), *((row, 2) for row in reversed(rows))]
  points = " ".join(f"{x(row['objects']):.1f},{y(row[key][end]):.1f}" for row, end in ends)
  return f'<polygon points="{points}" fill="{color}" opacity=".2"/>' if points else ""


def _legend(line: int, name: str, color: str) -> str:
  height = HEIGHT + LEGEND * line + 8
  return (
    f'<line x1="{LEFT}" x2="{LEFT + 24}" y1="{height}" y2="{height}" stroke="{color}" stroke-width="2"'
    f"{' stroke-dasharray=' + chr(34) + '4 4' + chr(34) if color == GRAY else ''}/>"
    f'<text x="{LEFT + 32}" y="{height + 4}">{escape(name)}</text>'
  )
