"""What `health.judge` found, step by step: written down with the records of the batch, and when to go back."""

import math
import time
from collections.abc import Mapping
from pathlib import Path

import jax
from absl import logging

from omniimage import strict_json
from omniimage.data.batches import Batches
from omniimage.errors import UserError
from omniimage.settings import FaultSettings

ROLLBACKS = 3  # to the same checkpoint; a run that then diverges again needs a person


class RollBack(Exception):
  """Too many updates in a row changed nothing.

  Attributes:
    step: after which the last update counted.
    batch_index: of the first batch behind those that did not.
  """

  def __init__(self, step: int, batch_index: int):
    super().__init__(f"back to before step {step}, on with batch {batch_index}")
    self.step, self.batch_index = step, batch_index


class FaultLog:
  """Appends to `faults.jsonl`: every update that did not count, every spike, every empty batch, every time the run went
  back."""

  def __init__(self, path: Path, settings: FaultSettings, batches: Batches):
    self._path, self._settings, self._batches = path, settings, batches
    self._went_back_to, self._times = None, 0

  def follow(self, batches: Batches):
    """What is seen from here on is of these batches."""
    self._batches = batches

  def see(self, step: int, batch_index: int, rows: int, metrics: Mapping[str, jax.Array]) -> tuple[float, bool]:
    """Reads the metrics of the update that led to `step`; returns its loss and whether it counted. Raises RollBack."""
    names = ("loss", "spike_score", "skipped_in_a_row", "empty")
    loss, score, skipped, empty = (float(value) for value in jax.device_get([metrics[name] for name in names]))
    spike = score > self._settings.spike_score
    if empty:
      self._write(fault="empty batch", step=step, batch_index=batch_index)
    elif skipped or spike:
      records = self._batches.record_ids(batch_index, rows)
      self._write(
        fault="spike" if spike and math.isfinite(loss) else "not finite",
        step=step,
        batch_index=batch_index,
        loss=loss,
        spike_score=score,
        skipped=bool(skipped),
        records=records,
      )
    if skipped >= self._settings.roll_back_after and not empty:
      raise RollBack(step - int(skipped), batch_index + 1)
    return loss, not skipped

  def went_back(self, why: RollBack, checkpoint: int | None):
    """Notes that the run goes on from a checkpoint, None being its beginning. UserError if it did so too often."""
    self._times = self._times + 1 if checkpoint == self._went_back_to else 1
    self._went_back_to = checkpoint
    self._write(fault="roll back", step=why.step, batch_index=why.batch_index, checkpoint=checkpoint)
    if self._times > ROLLBACKS:
      raise UserError(
        f"the run went back {ROLLBACKS} times to the checkpoint of step {checkpoint or 0}, and its losses or gradients "
        f"were not finite again; {self._path.name} names the batches. Lower the learning rates, or mend the data"
      )

  def _write(self, **entry):
    if jax.process_index() == 0:
      shown = {name: value for name, value in entry.items() if name != "records"}
      logging.warning("%s", ", ".join(f"{name} {value}" for name, value in shown.items()))
      strict_json.append_line(self._path, {"time": round(time.time(), 3), **entry})
