"""What the server counts, in the text that Prometheus reads."""

import bisect
import threading
from collections.abc import Callable, Mapping

SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)  # upper bounds of the buckets of times
ROWS = (1, 2, 4, 8, 16, 32, 64)  # of batches


class Metrics:
  """Counters by name and labels, and histograms by name; for all threads."""

  def __init__(self):
    self._lock = threading.Lock()
    self._counts: dict[str, dict[str, float]] = {}
    self._histograms: dict[str, tuple[tuple[float, ...], list[int], list[float]]] = {}
    self._gauges: dict[str, Callable[[], float]] = {}

  def count(self, name: str, labels: Mapping[str, str] = {}, by: float = 1):
    shown = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items())
    shown = f"{{{shown}}}" if shown else ""
    with self._lock:
      own = self._counts.setdefault(name, {})
      own[shown] = own.get(shown, 0) + by

  def observe(self, name: str, value: float, bounds: tuple[float, ...] = SECONDS):
    """Puts a value into a histogram, whose bounds are those of the first time."""
    with self._lock:
      bounds, counts, total = self._histograms.setdefault(name, (bounds, [0] * (len(bounds) + 1), [0.0]))
      counts[bisect.bisect_left(bounds, value)] += 1
      total[0] += value

  def gauge(self, name: str, value: Callable[[], float]):
    """What is asked for whenever the text is."""
    self._gauges[name] = value

  def text(self) -> str:
    lines = []
    with self._lock:
      for name, own in sorted(self._counts.items()):
        lines.append(f"# TYPE omniimage_{name} counter")
        lines += [f"omniimage_{name}{labels} {value:g}" for labels, value in sorted(own.items())]
      for name, (bounds, counts, (total,)) in sorted(self._histograms.items()):
        lines.append(f"# TYPE omniimage_{name} histogram")
        below = 0
        for bound, n in zip((*bounds, "+Inf"), counts):
          below += n
          lines.append(f'omniimage_{name}_bucket{{le="{bound}"}} {below}')
        lines += [f"omniimage_{name}_sum {total:g}", f"omniimage_{name}_count {below}"]
    for name, value in sorted(self._gauges.items()):
      lines += [f"# TYPE omniimage_{name} gauge", f"omniimage_{name} {value():g}"]
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
  return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
