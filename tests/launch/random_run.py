"""A run of random numbers, as if it had been trained."""

import contextlib
from pathlib import Path

from omniimage import versions
from omniimage.checkpoint import Checkpoints
from omniimage.settings import from_config
from omniimage.workdir import Workdir
from tests import small


def random_run(path: Path, **changes):
  """The workdir of one with a checkpoint of step 1; `changes` of `small.config`."""
  config, workdir = small.config(**changes), Workdir(path)
  workdir.create()
  workdir.write_config(config.to_dict())
  with contextlib.closing(Checkpoints(workdir.checkpoints, keep=1)) as checkpoints:
    about = {
      "config": config.to_dict(), "vocabulary": small.text_tokenizer().fingerprint, "seconds": {}, "wall": {}
    }  # fmt: skip
    checkpoints.save(1, {"params": small.params(small.omni(from_config(config)))}, versions.stamped(about))
