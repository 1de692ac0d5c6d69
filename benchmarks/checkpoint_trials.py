"""Trials of `benchmarks.faults` that are done to the checkpoints of a run that was stopped."""

import dataclasses
import random
import re
import shutil
from pathlib import Path

from benchmarks.fault_trials import Outcome, Reference
from benchmarks.faulty import EVERY

FOREIGN = (
  ".DS_Store", "Thumbs.db", "desktop.ini", "._about.json", ".nfs0001", "about.json~", "notes.txt", "process_0~"
)  # fmt: skip


def foreign(reference: Reference, workdir: Path, rng: random.Random) -> Outcome:
  """Files that others leave behind, in every folder of all checkpoints and beside them. No step may be lost."""
  run = reference.as_of(workdir, rng.randrange(2 * EVERY, reference.last))
  last = run.steps_saved()[-1]
  folders = [path for path in (workdir / "checkpoints").rglob("*") if path.is_dir()]
  for folder in (workdir / "checkpoints", *folders):
    for name in FOREIGN:
      (folder / name).write_bytes(rng.randbytes(8))
  run.start()
  outcome = reference.ended(run, run.wait(), lost=[last - run.resumed_at()])
  told = run.said().count("which the run has not written") == 1
  return dataclasses.replace(outcome, survived=outcome.survived and outcome.lost == [0] and told)


def copied(reference: Reference, workdir: Path, rng: random.Random) -> Outcome:
  """An older checkpoint copied over the name of the newest. It must be noticed and passed by."""
  run = reference.as_of(workdir, rng.randrange(3 * EVERY, reference.last))
  *older, before, last = run.steps_saved()
  shutil.rmtree(workdir / "checkpoints" / str(last))
  source = rng.choice([*older, before])
  shutil.copytree(workdir / "checkpoints" / str(source), workdir / "checkpoints" / str(last))
  run.start()
  outcome = reference.ended(run, run.wait(), lost=[last - run.resumed_at()])
  noticed = run.resumed_at() == before and f"it is the checkpoint of step {source}" in run.said()
  return dataclasses.replace(outcome, survived=outcome.survived and noticed)


def vanished(reference: Reference, workdir: Path, rng: random.Random) -> Outcome:
  """The checkpoints are gone. The command must say so and change nothing; begun anew on purpose, it ends."""
  run = reference.as_of(workdir, rng.randrange(2 * EVERY, reference.last))
  shutil.rmtree(workdir / "checkpoints")
  files = lambda folder: {path.name: path.read_bytes() for path in folder.iterdir()}  # noqa: E731
  before = files(workdir / "metrics")
  run.start()
  codes, said = run.wait(), run.said()
  stopped = codes == [2] and len(re.findall("^error: .*--begin_anew", said, re.MULTILINE)) == 1
  unchanged = files(workdir / "metrics") == before
  run.start("--begin_anew")
  outcome = reference.ended(run, run.wait(), note="stopped, then begun anew on purpose")
  kept = files(workdir / "old_run" / "metrics") == before
  return dataclasses.replace(outcome, survived=outcome.survived and stopped and unchanged and kept)
