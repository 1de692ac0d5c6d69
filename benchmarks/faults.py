"""What a run survives: real training processes, killed, stopped, starved and lied to, and started again.

  python -m benchmarks.faults                        # all of it, about an hour on two cores
  python -m benchmarks.faults --faults=kill --times=5

Each trial is a run of forty steps in four stages (`benchmarks/faulty.py`). It has survived if, after what was done to
it, the same command ends the run; `bitwise` counts those whose last checkpoint equals that of a run nothing was done
to, in every bit of parameters, optimizer and counters. A trial on another mesh, or on another number of processes, is
compared by its losses, which must agree within 1e-5 relative. Writes the table and every trial to --out.
"""

import dataclasses
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from absl import app, flags, logging

from benchmarks import bucket_trials, checkpoint_trials, hang_trials, workdir_trials
from benchmarks import fault_trials as trials
from benchmarks.fault_trials import Outcome, Reference

FAULTS = flags.DEFINE_list("faults", None, "which; all by default")
TIMES = flags.DEFINE_integer("times", None, "trials of each; by default as many as the table has", lower_bound=1)
WORKERS = flags.DEFINE_integer("workers", 2, "trials at one time", lower_bound=1)
OUT = flags.DEFINE_string("out", "runs/faults", "folder for faults.md and faults.json")
SEED = flags.DEFINE_integer("seed", 0, "of the moments")


@dataclasses.dataclass(frozen=True)
class Fault:
  """Attributes:
  name: for --faults.
  what: for the table.
  times: trials by default.
  trial: one of them.
  """

  name: str
  what: str
  times: int
  trial: Callable[[Reference, Path, random.Random], Outcome]


FSDP_TENSOR = (8, {"fsdp": 8}), (8, {"fsdp": 4, "tensor": 2})  # devices and mesh, before and after
TABLE = (
  Fault("kill", "SIGKILL at random moments until the run has ended", 100, trials.killed),
  Fault("term", "SIGTERM at a random step", 20, trials.terminated),
  Fault("two", "the same command started twice", 20, workdir_trials.started_twice),
  Fault("torn", "metrics and faults: bytes cut off or put on", 20, workdir_trials.torn),
  Fault("truncated", "last checkpoint: a file truncated", 20, trials.damaged("truncated")),
  Fault("flipped", "last checkpoint: a byte flipped", 20, trials.damaged("flipped")),
  Fault("removed", "last checkpoint: a file removed", 20, trials.damaged("removed")),
  Fault("foreign", "foreign files in and beside the checkpoints", 20, checkpoint_trials.foreign),
  Fault("copied", "last checkpoint: an older one copied over it", 20, checkpoint_trials.copied),
  Fault("vanished", "checkpoints removed", 20, checkpoint_trials.vanished),
  Fault("full", "disk full during a save", 3, trials.disk_full),
  Fault("readonly", "workdir turned read-only", 3, trials.read_only),
  Fault("mesh 1-8", "1 device, then 8", 1, trials.other_mesh((1, {}), (8, {}))),
  Fault("mesh fsdp-tensor", "fsdp 8, then fsdp 4 × tensor 2", 1, trials.other_mesh(*FSDP_TENSOR)),
  Fault("mesh 8-2", "8 devices, then 2", 1, trials.other_mesh((8, {}), (2, {}))),
  *(
    Fault(f"hosts {a}-{b}", f"{a} process{'es' * (a > 1)}, then {b}", 1, trials.other_hosts(a, b))
    for a, b in ((1, 2), (2, 1), (1, 4), (4, 1), (2, 4), (4, 2))
  ),
  Fault("dead 2", "one of 2 processes killed", 4, trials.one_dies(2)),
  Fault("dead 4", "one of 4 processes killed", 4, trials.one_dies(4)),
  Fault("stuck 1", "reading a batch never ends", 3, hang_trials.stuck(1)),
  Fault("stuck 2", "reading a batch never ends in one of 2 processes", 3, hang_trials.stuck(2)),
  Fault("slow", "reading a batch takes a minute", 3, hang_trials.slow(60)),
  Fault("stopped 2", "SIGSTOP to one of 2 processes", 3, hang_trials.stopped(2)),
  Fault("stopped 4", "SIGSTOP to one of 4 processes", 3, hang_trials.stopped(4)),
  Fault("nan", "gradients not finite, once", 1, trials.not_finite(1)),
  Fault("nans", "gradients not finite for ten steps", 1, trials.not_finite(10)),
  Fault("bucket kill", "in a bucket: SIGKILL at random moments until the run has ended", 40, bucket_trials.killed),
  Fault("bucket damaged", "in a bucket: an object of the last checkpoint changed", 20, bucket_trials.damaged),
  Fault(
    "bucket busy", "in a bucket: each tenth answer 429 or 503, all late", 5, bucket_trials.answered_badly(0.1, 0.05)
  ),
  Fault("bucket two", "in a bucket: the same command started twice", 10, bucket_trials.started_twice),
  Fault("bucket hosts", "in a bucket: 2 processes, then 1", 2, bucket_trials.fewer_hosts),
)


def main(_):
  logging.set_verbosity(logging.ERROR)  # Orbax tells much; of warnings each run has its own
  names = FAULTS.value or [fault.name for fault in TABLE]
  unknown = set(names) - {fault.name for fault in TABLE}
  if unknown:
    raise app.UsageError(f"no such fault: {', '.join(unknown)}; there are {', '.join(fault.name for fault in TABLE)}")
  out = Path(OUT.value)
  out.mkdir(parents=True, exist_ok=True)
  rows = []
  with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(WORKERS.value) as pool:
    reference = Reference.make(Path(folder) / "reference")
    for fault in (fault for fault in TABLE if fault.name in names):
      outcomes = list(_try(fault, TIMES.value or fault.times, reference, Path(folder), pool))
      rows.append({"fault": fault.what, **_row(outcomes), "trials": [dataclasses.asdict(o) for o in outcomes]})
      (out / "faults.json").write_text(json.dumps(rows, indent=1) + "\n")
      (out / "faults.md").write_text(table(rows))
      print(table(rows[-1:]).splitlines()[-1], flush=True)
  print(table(rows))


def _try(fault: Fault, times: int, reference: Reference, folder: Path, pool: ThreadPoolExecutor) -> Iterator[Outcome]:
  """The outcomes of so many trials. A run that is killed counts as often as it was."""

  def one(number: int) -> Outcome:
    workdir = folder / f"{fault.name}-{number}".replace(" ", "-")
    outcome = fault.trial(reference, workdir, random.Random(f"{SEED.value} {fault.name} {number}"))
    print(f"{fault.name} {number}: {outcome}", flush=True)
    return outcome

  done = number = 0
  while done < times:
    batch = list(pool.map(one, range(number, number + min(WORKERS.value, times - done))))
    number += len(batch)
    done += sum(outcome.times for outcome in batch)
    yield from batch


def _row(outcomes: list[Outcome]) -> dict:
  lost = [steps for outcome in outcomes for steps in outcome.lost]
  compared = [outcome for outcome in outcomes if outcome.bitwise is not None]
  during = sum(outcome.during_saves for outcome in outcomes)
  saves = [f"{during} times a save was under way"] if during else []
  bitwise = sum(outcome.times for outcome in compared if outcome.bitwise)
  return {
    "tried": sum(outcome.times for outcome in outcomes),
    "survived": sum(outcome.times for outcome in outcomes if outcome.survived),
    "lost": f"{sum(lost) / len(lost):.1f}, at most {max(lost)}" if lost else "",
    "bitwise": f"{bitwise} of {sum(outcome.times for outcome in compared)}" if compared else "",
    "notes": "; ".join(dict.fromkeys([*saves, *(outcome.note for outcome in outcomes if outcome.note)])),
  }


def table(rows: list[dict]) -> str:
  lines = ["| fault | tried | survived | steps lost | bitwise equal | notes |", "| --- | --- | --- | --- | --- | --- |"]
  keys = ("fault", "tried", "survived", "lost", "bitwise", "notes")
  return "\n".join([*lines, *(f"| {' | '.join(str(row[key]) for key in keys)} |" for row in rows)]) + "\n"


if __name__ == "__main__":
  app.run(main)
