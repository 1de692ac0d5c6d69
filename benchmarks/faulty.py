"""The config of a run of forty steps in four stages, and what `benchmarks.faults` does to it by the environment:

NAN_BATCHES=FIRST:COUNT   the gradients of these batches are not finite
RECORDS=FOLDER            each process notes there which rows of which batch it reads, and their records
STUCK=PROCESS:BATCH:S     reading this batch takes a process S seconds
HASTE=N                   who hangs is named after an N-th of the time
"""

import json
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from configs import scenes
from omniimage.data.batches import Reader
from omniimage.systems.omni import OmniSystem
from omniimage.training import hangs, sharded
from omniimage.training.samples import SampleSheets

STEPS = 10  # a stage
EVERY = 2  # steps between checkpoints
LONG_READ = "read_for_long"  # the function that a stuck process is in


def forty_steps() -> ConfigDict:
  """The config alone."""
  config = scenes.get_config("tiny")
  config.data.image_size = 16
  config.data.source.max_objects = 2
  config.data.sequence_length = 64
  config.data.packing_rows = 16
  for part in (config.tokenizer, config.prior, config.decoder):
    part.width, part.heads, part.mlp_width = 32, 2, 64
  config.prior.kv_heads, config.prior.head_width, config.decoder.kv_heads = 2, 16, 2
  config.prior.depth = config.decoder.depth = 1
  config.tokenizer.levels = (8, 8)
  config.decoder.text_length = 24
  for stage in config.stages.values():
    stage.rows, stage.steps, stage.warmup_steps = 8, STEPS, 0
  config.run.checkpoint_every, config.run.keep_checkpoints, config.run.log_every = EVERY, 3, 1
  return config


def get_config() -> ConfigDict:
  """The config of a process that is a trial: it also changes the program."""
  SampleSheets.write = lambda *_: None  # takes long to compile, and nothing of the state depends on it
  if batches := os.environ.get("NAN_BATCHES"):
    first, count = map(int, batches.split(":"))
    _poison(first, first + count)
  if folder := os.environ.get("RECORDS"):
    _note_records(Path(folder))
  if stuck := os.environ.get("STUCK"):
    process, batch, seconds = stuck.split(":")
    if process == os.environ.get("JAX_PROCESS_ID", "0"):
      _be_stuck(int(batch), float(seconds))
  for name in ("BEAT", "FLOOR", "LATER", "SILENT", "GIVEN_UP"):
    setattr(hangs, name, getattr(hangs, name) / int(os.environ.get("HASTE", 1)))
  return forty_steps()


def _poison(first: int, stop: int):
  """The losses of batches first … stop − 1 stay as they are, but none of their gradients is finite."""
  losses, make_train_step = OmniSystem.losses, sharded.make_train_step
  batch_index = None  # of the step that is being traced

  @jax.custom_vjp
  def poison(loss, poisoned):
    return loss

  poison.defvjp(
    lambda loss, poisoned: (loss, poisoned), lambda poisoned, gradient: (jnp.where(poisoned, jnp.nan, gradient), None)
  )

  def poisoned_losses(*args):
    loss, metrics = losses(*args)
    return poison(loss, (first <= batch_index) & (batch_index < stop)), metrics

  def make(*args):
    train_step = make_train_step(*args)

    def step(state, batch):
      nonlocal batch_index
      batch_index = state.batch_index
      return train_step(state, batch)

    return step

  OmniSystem.losses, sharded.make_train_step = poisoned_losses, make


def _note_records(folder: Path):
  read = Reader.read

  def read_and_note(self, batch_index, rows, own=None):
    records = [[record for _, record in self.stream.row(batch_index, rows, place)] for place in range(rows)]
    own = [int(row) for row in (range(rows) if own is None else own)]
    line = json.dumps([batch_index, {row: records[row] for row in own}])
    with open(folder / f"{os.getpid()}.jsonl", "a") as file:
      file.write(line + "\n")
    return read(self, batch_index, rows, own)

  Reader.read = read_and_note


def _be_stuck(batch: int, seconds: float):
  read = Reader.read

  def read_for_long(self, batch_index, rows, own=None):
    if batch_index == batch:
      print(f"stuck at {time.time()}", flush=True)
      time.sleep(seconds)
    return read(self, batch_index, rows, own)

  Reader.read = read_for_long
