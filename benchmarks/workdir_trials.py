"""Trials of `benchmarks.faults` that concern the workdir: who else is there, and what became of its files."""

import dataclasses
import random
import re
import time
from pathlib import Path

from benchmarks.fault_trials import Outcome, Reference, stopped_at


def started_twice(reference: Reference, workdir: Path, rng: random.Random) -> Outcome:
  """The same command again while it runs: one of the two trains to the end, the other says which."""
  runs = [reference.again(workdir, logs=workdir.with_name(f"{workdir.name}-{which}")) for which in ("a", "b")]
  runs[0].start()
  time.sleep(rng.uniform(0, 0.2 * reference.start_seconds))  # training takes longer
  runs[1].start()
  codes = [run.wait() for run in runs]
  if sorted(codes) != [[0], [2]]:
    return Outcome(False, bitwise=False, note=f"exit codes {codes}: {[run.said()[-300:] for run in runs]}")
  holder, other = sorted(runs, key=lambda run: run.processes[0].returncode)
  outcome = reference.ended(holder, [0])
  told = re.fullmatch(rf"error: .* is in use by process {holder.processes[0].pid} on .*\n", other.said())
  note = "" if told else f"the second said {other.said()[-300:]!r}"
  return dataclasses.replace(outcome, survived=outcome.survived and bool(told), note=note)


def torn(reference: Reference, workdir: Path, rng: random.Random) -> Outcome:
  """Bytes cut from the ends of metrics and faults, or put on them. No line may be missing but those that were cut."""
  run = reference.again(workdir)
  stopped_at(run, rng.randrange(1, reference.last * 3 // 5))
  last = run.last_step()
  for name in ("metrics.jsonl", "faults.jsonl"):
    path = workdir / "metrics" / name
    whole = path.read_bytes() if path.exists() else b'{"fault": "spike", "step": 1}\n'
    cut = rng.choice([0, rng.randrange(len(whole) + 1)])
    path.write_bytes(whole[: len(whole) - cut] + rng.randbytes(rng.choice([0, 1, 100]) if cut else 9))
  left = set(run.losses())
  run.start()
  codes = run.wait()
  if codes != [0]:
    return Outcome(False, bitwise=False, note=run.said()[-300:])
  expected = {step: loss for step, loss in reference.run.losses().items() if step in left or step > last}
  right = run.resumed_at() == last and run.losses() == expected
  return Outcome(right, lost=[last - run.resumed_at()], bitwise=reference.same_arrays(run))
