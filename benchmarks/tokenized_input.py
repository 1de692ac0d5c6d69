"""What it saves to encode images once: sequences a second from stored codes against those from images.

  python -m benchmarks.tokenized_input --out=tokenized_input.md

The photographs of `benchmarks.input` are prepared, a tokenizer of `configs/images.py:small` is trained for a step, and
`launch.prepare --tokenize` encodes them. Then batches are read, images and codes in turns, round by round, and steps of
the prior's stage are made on them; a figure is the median of the rounds. Both are the same sequences.
"""

import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import jax
from absl import app, logging
from ml_collections import ConfigDict

from benchmarks.input import OUT, PHOTOGRAPHS, ROUNDS, WORKERS, make_photographs, prepare
from configs import images as configs
from omniimage.data.batches import Batches
from omniimage.data.prepared import Prepared
from omniimage.data.sources import open_source
from omniimage.data.text import TextTokenizer
from omniimage.prepare.tokenize import Request, tokenize
from omniimage.settings import from_config
from omniimage.systems import open_system
from omniimage.systems.system import System
from omniimage.training.coded import Coded
from omniimage.training.loop import train
from omniimage.training.optimizer import make_optimizer
from omniimage.training.state import enter_stage, fresh_state
from omniimage.training.step import make_train_step
from omniimage.workdir import load_run

ROWS, READ, STEPS = 16, 24, 6  # rows of a batch, batches and steps of a round


def main(_):
  logging.set_verbosity(logging.WARNING)
  with tempfile.TemporaryDirectory() as folder:
    text = table(Path(folder))
  print(text)
  if OUT.value:
    Path(OUT.value).write_text(f"{text}\n")


def table(folder: Path) -> str:
  """What was measured, as Markdown."""
  make_photographs(folder / "photographs", PHOTOGRAPHS.value)
  prepare(folder / "photographs", folder / "prepared")
  train(config(folder / "prepared", schedule=("tokenizer",)), folder / "run")
  began = time.perf_counter()
  encoded = tokenize(Request(folder / "prepared", folder / "run", folder / "codes", threads=WORKERS.value), print)
  encoding = PHOTOGRAPHS.value / (time.perf_counter() - began)
  read, trained = measured(folder)
  lines = [
    f"| sequences/s, {WORKERS.value} threads | images | codes | codes ÷ images |",
    "| --- | --- | --- | --- |",
    row("read", read),
    row("read, and a step of the prior made", trained),
    "",
    f"Encoded {encoding:,.0f} images/s, compiling included; bytes a record: "
    f"{bytes_a_record(folder / 'prepared'):,.0f} of images, {bytes_a_record(encoded.path):,.0f} of codes.",
  ]
  return "\n".join(lines)


def config(prepared: Path, **changes) -> ConfigDict:
  """Of pictures of 64 pixels, 64 codes each; one step a stage."""
  made = configs.get_config("small")
  made.data.source.path = str(prepared)
  for name in ("tokenizer", "prior"):
    made.stages[name].update(dict(steps=1, warmup_steps=0, rows=ROWS))
  made.run.sample_every = 0
  made.update(changes)
  return made


def measured(folder: Path) -> tuple[dict[str, float], dict[str, float]]:
  """Sequences a second of images and of codes: read alone, and with a step made on each batch."""
  with_codes = config(folder / "prepared", schedule=("prior",))
  with_codes.data.codes = str(folder / "codes")
  text_tokenizer, settings = TextTokenizer.load(), from_config(with_codes)
  system = open_system(settings, text_tokenizer.size)
  source = open_source(settings.data, "train", settings.buckets, text_tokenizer, system.vocabulary)
  images = Batches(source, settings.data, system.vocabulary, text_tokenizer, settings.buckets, settings.seed)
  by = {"images": images, "codes": Coded.open(system, text_tokenizer).batches}
  step = stepping(system, load_run(folder / "run").params)
  read, trained = ({name: [] for name in by} for _ in range(2))
  for _ in range(ROUNDS.value):
    for name, batches in by.items():
      read[name].append(rate(batches, READ, lambda batch: None))
      trained[name].append(rate(batches, STEPS, step))
  return tuple({name: median(values) for name, values in rates.items()} for rates in (read, trained))


def stepping(system: System, params) -> Callable:
  """Makes a step of the prior's stage on a batch, from the same state each time, and waits for it."""
  stage = system.settings.stages["prior"]
  state = enter_stage(fresh_state(params), stage.moves, make_optimizer(system.settings.optimizer, stage))
  step = jax.jit(make_train_step(system, stage, 0))
  return functools.partial(lambda batch: jax.block_until_ready(step(state, batch)))


def rate(batches: Batches, count: int, use: Callable) -> float:
  """Sequences a second over so many batches, after one that compiles and fills the pipeline."""
  reading: Iterator = batches.iterate(0, count + 1, ROWS, num_threads=WORKERS.value)
  use(next(reading)[1])
  began, sequences = time.perf_counter(), 0
  for _, batch in reading:
    use(batch)
    sequences += int(batch["segments"].max(axis=1).sum())
  return sequences / (time.perf_counter() - began)


def row(name: str, rates: dict[str, float]) -> str:
  return f"| {name} | {rates['images']:,.0f} | {rates['codes']:,.0f} | {rates['codes'] / rates['images']:.1f} |"


def bytes_a_record(path: Path) -> float:
  splits = Prepared.open(path).splits.values()
  return sum(shard.bytes for split in splits for shard in split.shards) / sum(split.records for split in splits)


if __name__ == "__main__":
  app.run(main)
