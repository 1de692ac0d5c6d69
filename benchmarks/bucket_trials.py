"""Trials of `benchmarks.faults` whose workdir is in a bucket; the reference is a run on disk. Its objects are those of
`benchmarks/fake_storage.py`, for any process that a trial starts.
"""

import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import fault_trials
from benchmarks.fake_storage import shared as storage
from benchmarks.fault_trials import RTOL, RUN_AGAIN, Outcome, Reference, Run
from benchmarks.faulty import EVERY
from omniimage.paths import anywhere


def again(reference: Reference, workdir: Path, **environment: str) -> Run:
  """The reference's command, its workdir in the bucket under the name of `workdir`, its logs beside that."""
  bucket = storage().bucket
  name = re.sub("[^a-z0-9-]", "-", f"{workdir.parent.name}-{workdir.name}".lower())
  return reference.again(anywhere(f"gs://{bucket}/{name}"), logs=workdir, **environment)


def killed(reference: Reference, workdir: Path, rng: random.Random) -> Outcome:
  """At random moments, until the run has ended."""
  return fault_trials.killed(reference, workdir, rng, again(reference, workdir))


def killed_once(reference: Reference, workdir: Path, rng: random.Random) -> Outcome:
  """At a random moment after a checkpoint."""
  run = again(reference, workdir)
  last = _killed_after(run, 1 + rng.randrange(2), rng)
  return _ended(reference, run, last)


def damaged(reference: Reference, workdir: Path, rng: random.Random) -> Outcome:
  """An object of the last checkpoint is changed, cut or removed while no process runs."""
  run = again(reference, workdir)
  _killed_after(run, 2, rng)
  before, last = run.steps_saved()[-2:]
  objects, top = storage().objects, f"{run.workdir.name}/checkpoints/{last}/"
  name = rng.choice([name for name in objects if name.startswith(top) and objects[name]])
  whole, place = objects[name], rng.randrange(len(objects[name]))
  match how := rng.choice(["changed", "cut", "removed"]):
    case "changed":
      objects[name] = whole[:place] + bytes([whole[place] ^ rng.randrange(1, 256)]) + whole[place + 1 :]
    case "cut":
      objects[name] = whole[:place]
    case "removed":
      del objects[name]
  outcome = _ended(reference, run, last)
  noticed = run.resumed_at() == before and f"{last} is damaged" in run.said()
  kept = any(name.startswith(f"{run.workdir.name}/checkpoints/damaged.{last}/") for name in objects)
  outcome.note = outcome.note or ("" if noticed and kept else f"{name} {how}: not noticed, or not kept")
  outcome.survived = outcome.survived and noticed and kept
  return outcome


def answered_badly(failing: float, delay: float) -> Callable:
  """A share of the requests fails, all are late; each failure costs a second or more, so there are few checkpoints."""

  def trial(reference: Reference, workdir: Path, rng: random.Random) -> Outcome:
    with storage().door(failing, delay, rng.randrange(2**32)) as environment:
      run = again(reference, workdir, **environment)
      run.start(f"--config.run.checkpoint_every={5 * EVERY}")
      return reference.ended(run, run.wait())

  return trial


def started_twice(reference: Reference, workdir: Path, rng: random.Random) -> Outcome:
  """The same command again while it runs: it says who trains there, and the run ends as if nothing had been."""
  runs = [again(reference, workdir), again(reference, workdir)]
  runs[1]._logs_beside = workdir.with_name(f"{workdir.name}-second")
  runs[0].start()
  time.sleep(rng.uniform(0, 0.2 * reference.start_seconds))
  runs[1].start()
  codes = sorted(run.wait() for run in runs)
  if codes != [[0], [2]]:
    return Outcome(False, bitwise=False, note=f"exit codes {codes}: {[run.said()[-300:] for run in runs]}")
  holder, other = sorted(runs, key=lambda run: run.processes[0].returncode)
  outcome = reference.ended(holder, [0])
  told = re.search(rf"^error: .* is in use by process {holder.processes[0].pid} on .*\n", other.said(), re.MULTILINE)
  outcome.survived, outcome.note = outcome.survived and bool(told), "" if told else f"said {other.said()[-300:]!r}"
  return outcome


def fewer_hosts(reference: Reference, workdir: Path, rng: random.Random) -> Outcome:
  """Two processes are asked to stop once they have a checkpoint, and one goes on from there."""
  run = again(reference, workdir)
  run.start(processes=2, devices=2)
  while not _complete(run) and run.alive():
    time.sleep(0.02)
  run.processes[0].send_signal(signal.SIGTERM)
  if set(codes := run.wait()) != {RUN_AGAIN}:
    return Outcome(False, note=f"exit codes {codes}: {run.said()[-300:]}")
  last = max(_complete(run))
  run.start(devices=4)
  difference = reference.loss_difference(run) if run.wait() == [0] else float("inf")
  survived = difference <= RTOL and run.resumed_at() == last
  return Outcome(survived, note=f"losses within {difference:.0e}" if survived else run.said()[-300:])


def _killed_after(run: Run, checkpoints: int, rng: random.Random) -> int:
  """Kills the run once so many checkpoints are complete, and returns the last step of these."""
  run.start()
  while len(_complete(run)) < checkpoints and run.alive():
    time.sleep(0.02)
  time.sleep(rng.uniform(0, 0.3))
  run.kill()
  run.wait()
  return max(_complete(run), default=0)


def _complete(run: Run) -> list[int]:
  """Steps of the checkpoints there, by their markers alone."""
  marker = re.compile(rf"{run.workdir.name}/checkpoints/(\d+)/complete\.json")
  return [int(found[1]) for name in storage().objects if (found := marker.fullmatch(name))]


def _ended(reference: Reference, run: Run, last: int) -> Outcome:
  run.start()
  outcome = reference.ended(run, run.wait(), lost=[last - run.resumed_at()])
  return outcome if run.resumed_at() else Outcome(False, bitwise=False, note=f"began anew: {run.said()[-300:]}")
