"""Where metrics go: JSON lines, TensorBoard, and a progress bar."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter
from tqdm import tqdm


class MetricsWriter:
  """Appends to `metrics.jsonl` and TensorBoard files in a folder. A resumed run drops the lines it will write again."""

  def __init__(self, folder: Path, step: int):
    path = folder / "metrics.jsonl"
    if path.exists():
      kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
      path.write_text("".join(line + "\n" for line in kept))
    self._lines = path.open("a", buffering=1)
    self._board = SummaryWriter(str(folder), purge_step=step + 1, flush_secs=30)

  def write(self, step: int, stage: str, values: Mapping[str, float]):
    self._lines.write(json.dumps({"step": step, "stage": stage, **values}) + "\n")
    for name, value in values.items():
      self._board.add_scalar(f"{stage}/{name}", value, step)

  def close(self):
    self._lines.close()
    self._board.close()


def _step_of(line: str) -> float:
  try:
    return json.loads(line)["step"]
  except (ValueError, KeyError):  # a line cut short by a kill
    return float("inf")


class Progress:
  """One bar a stage: loss, images a second, time left. Where nobody watches a terminal, a line now and then."""

  SECONDS = 15  # between lines without a terminal

  def __init__(self, stage: str, done: int, steps: int):
    self._watched = sys.stderr.isatty()
    self._bar = tqdm(
      total=steps, initial=done, desc=stage, unit="step", dynamic_ncols=True, mininterval=0.5, disable=not self._watched
    )
    self._stage, self._done, self._steps = stage, done, steps
    self._began = self._printed = time.monotonic()
    self._first = done

  def update(self, loss: float | None, images_per_second: float):
    """One step more. `loss` is of the step before; None at the first."""
    self._done += 1
    self._bar.update()
    text = "" if loss is None else f"loss {loss:.4f}, {images_per_second:.0f} images/s"
    self._bar.set_postfix_str(text, refresh=False)
    now = time.monotonic()
    if not self._watched and (now - self._printed > self.SECONDS or self._done == self._steps):
      self._printed = now
      left = (now - self._began) / (self._done - self._first) * (self._steps - self._done)
      print(f"{self._stage} {self._done}/{self._steps}: {text}, {left:.0f} s left", file=sys.stderr, flush=True)

  def close(self):
    self._bar.close()
