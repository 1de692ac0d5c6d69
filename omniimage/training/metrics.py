"""Where metrics go: JSON lines, TensorBoard, and a progress bar."""

import logging
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import jax
from tensorboardX import SummaryWriter
from tqdm import tqdm

from omniimage import strict_json
from omniimage.files import write_whole
from omniimage.size import Size

# It would say of every number that it is not finite; TensorBoard marks those, and metrics.jsonl names them.
logging.getLogger("tensorboardX.x2num").setLevel(logging.ERROR)


class MetricsWriter:
  """`metrics.jsonl` and TensorBoard files in a folder; of several processes the first writes. `dropped.jsonl` keeps
  lines of steps that were made again."""

  def __init__(self, folder: Path):
    self._folder, self._lines, self._board = folder, None, None

  def begin(self, step: int):
    """Goes on after a step: lines of later ones are dropped, they will be written again."""
    self.close()
    if jax.process_index() == 0:
      path = self._folder / "metrics.jsonl"
      if path.exists():
        kept, again = [], []
        for entry in read_metrics(path):
          (kept if entry["step"] <= step else again).append(strict_json.dumps(entry) + "\n")
        self._keep_dropped(again)
        write_whole(path, "".join(kept).encode())
      self._lines = path.open("a", buffering=1)
      self._board = SummaryWriter(str(self._folder), purge_step=step + 1, flush_secs=30)

  def write(self, step: int, stage: str, values: Mapping[str, float]):
    if self._lines is not None:
      self._lines.write(strict_json.dumps({"step": step, "stage": stage, **values}) + "\n")
      for name, value in values.items():
        self._board.add_scalar(f"{stage}/{name}", value, step)

  def _keep_dropped(self, lines: list[str]):
    if lines:
      with (self._folder / "dropped.jsonl").open("a") as file:
        file.writelines(lines)

  def close(self):
    lines, board, self._lines, self._board = self._lines, self._board, None, None
    if lines is not None:
      lines.close()
      board.close()


def read_metrics(path: Path) -> list[dict]:
  """The lines that `MetricsWriter` wrote whole; whatever else is in the file is passed over."""

  def written(entry: dict) -> bool:
    return type(entry.get("step")) is int and isinstance(entry.get("stage"), str)

  return [entry for entry in strict_json.read_lines(path) if written(entry)]


def last_wall_seconds(folder: Path) -> float | None:
  """Wall time of the whole run when its last process last wrote metrics; None if it never did."""
  found = [entry.get("wall_seconds") for entry in read_metrics(folder / "metrics.jsonl")]
  return next((seconds for seconds in reversed(found) if isinstance(seconds, float) and math.isfinite(seconds)), None)


class Progress:
  """One bar a stage: loss, images a second, time left. Where nobody watches a terminal, a line now and then."""

  SECONDS = 15  # between lines without a terminal

  def __init__(self, stage: str, done: int, steps: int):
    first = jax.process_index() == 0
    self._watched = first and sys.stderr.isatty()
    self._silent = not first
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
    if not (self._watched or self._silent) and (now - self._printed > self.SECONDS or self._done == self._steps):
      self._printed = now
      left = (now - self._began) / (self._done - self._first) * (self._steps - self._done)
      print(f"{self._stage} {self._done}/{self._steps}: {text}, {left:.0f} s left", file=sys.stderr, flush=True)

  def compiling(self, size: Size):
    """The next step is the first on images of a size."""
    text = f"compiling for {'×'.join(map(str, size.pixels))} pixels"
    self._bar.set_postfix_str(text)
    if not (self._watched or self._silent) and self._done > self._first:
      print(f"{self._stage} {self._done}/{self._steps}: {text}", file=sys.stderr, flush=True)

  def __enter__(self) -> "Progress":
    return self

  def __exit__(self, *_):
    self._bar.close()
