"""The config of a small run whose process dies where $DIE_AFTER says: once the metrics of that step are written and the
checkpoint before it is complete. Each of the four stages takes ten updates; there is a checkpoint after every fourth.
"""

import os
import signal
import time
from pathlib import Path

from ml_collections import ConfigDict

from omniimage.training.metrics import MetricsWriter
from omniimage.training.samples import SampleSheets
from tests import small

EVERY = 4


def get_config() -> ConfigDict:
  config = small.config(**small.SHALLOW)
  config.run.checkpoint_every, config.run.keep_checkpoints, config.run.log_every = EVERY, 20, 1
  SampleSheets.write = lambda *_: None  # takes long to compile, and nothing of the state depends on it
  if after := os.environ.get("DIE_AFTER"):
    _die_after(int(after))
  return config


def _die_after(last: int):
  write = MetricsWriter.write

  def write_and_die(self, step, *args):
    write(self, step, *args)
    if step == last:
      workdir = Path(self._lines.name).parents[1]
      checkpoint = workdir / "checkpoints" / str((step - 1) // EVERY * EVERY)
      while not checkpoint.exists():
        time.sleep(0.01)
      os.kill(os.getpid(), signal.SIGKILL)

  MetricsWriter.write = write_and_die
