"""Where metrics go: JSON lines, TensorBoard, and a progress bar."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import jax
from tensorboardX import SummaryWriter
from tqdm import tqdm

from omniimage.files import write_whole


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
        lines = path.read_text().splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        self._keep_dropped([line for line in lines if _step_of(line) > step])
        write_whole(path, "".join(line + "\n" for line in kept).encode())
      self._lines = path.open("a", buffering=1)
      self._board = SummaryWriter(str(self._folder), purge_step=step + 1, flush_secs=30)

  def write(self, step: int, stage: str, values: Mapping[str, float]):
    if self._lines is not None:
      self._lines.write(json.dumps({"step": step, "stage": stage, **values}) + "\n")
      for name, value in values.items():
        self._board.add_scalar(f"{stage}/{name}", value, step)

  def _keep_dropped(self, lines: list[str]):
    if lines:
      with (self._folder / "dropped.jsonl").open("a") as file:
        file.writelines(f"{line}\n" for line in lines)

  def close(self):
    lines, board, self._lines, self._board = self._lines, self._board, None, None
    if lines is not None:
      lines.close()
      board.close()


def last_wall_seconds(folder: Path) -> float | None:
  """Wall time of the whole run when its last process last wrote metrics; None if it never did."""
  path = folder / "metrics.jsonl"
  lines = path.read_text().splitlines() if path.exists() else []
  return next((seconds for line in reversed(lines) if (seconds := _parsed(line).get("wall_seconds"))), None)


def _step_of(line: str) -> float:
  return _parsed(line).get("step", float("inf"))


def _parsed(line: str) -> dict:
  try:
    parsed = json.loads(line)
  except ValueError:  # a line cut short by a kill
    return {}
  return parsed if isinstance(parsed, dict) else {}


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

  def __enter__(self) -> "Progress":
    return self

  def __exit__(self, *_):
    self._bar.close()
