"""Trials of `benchmarks.faults` in which a process hangs without dying."""

import dataclasses
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.fault_trials import NOTICED, PATIENCE, RUN_AGAIN, Outcome, Reference, Run, compared
from benchmarks.faulty import EVERY, LONG_READ

END_AFTER = "--config.faults.end_hanging_after=1"  # second: as soon as it is named


def stuck(count: int, haste: int = 1) -> Callable:
  """One of several processes is stuck in reading a batch. All must name it and, told to, end; the command goes on."""

  def trial(reference: Reference, workdir: Path, rng: random.Random) -> Outcome:
    victim, batch = rng.randrange(count), rng.randrange(EVERY + 1, reference.last * 3 // 5)
    reading = f"{victim}:{batch}:{PATIENCE}"
    run = Run(workdir, (*reference.flags, END_AFTER), STUCK=reading, HASTE=str(haste))
    run.start(processes=count, devices=_devices(count))
    named = _named(run, victim, rf"hangs in the input of step {batch + 1}\b", range(count))
    seconds = time.time() - _began(run, victim)
    codes, last = run.wait(), run.last_step()
    told = named and codes == [RUN_AGAIN] * count
    stacks = LONG_READ in (workdir / "logs" / f"{victim}.log").read_text()
    return _goes_on(
      reference, workdir, count, last, told and stacks and seconds < NOTICED, f"named after {seconds:.0f} s"
    )

  return trial


def stopped(count: int, haste: int = 1) -> Callable:
  """One of several processes gets SIGSTOP. The others must name it, and end before JAX aborts them."""

  def trial(reference: Reference, workdir: Path, rng: random.Random) -> Outcome:
    victim = rng.randrange(count)
    run = reference.again(workdir, HASTE=str(haste))
    run.start(processes=count, devices=_devices(count))
    run.wait_for(rng.randrange(EVERY + 1, reference.last * 3 // 5))
    run.processes[victim].send_signal(signal.SIGSTOP)
    began, others = time.time(), [index for index in range(count) if index != victim]
    named = _named(run, victim, "has said nothing since", others)
    seconds = time.time() - began
    codes = [run.processes[index].wait(PATIENCE) for index in others]
    ended = time.time() - began
    run.kill()
    run.wait()
    told = named and codes == [RUN_AGAIN] * len(others) and seconds < NOTICED
    note = f"named after {seconds:.0f} s, ended after {ended:.0f} s"
    return _goes_on(reference, workdir, count, run.last_step(), told, note)

  return trial


def slow(seconds: float, haste: int = 1) -> Callable:
  """Reading one batch takes so long. It must be named, and cost nothing but that time."""

  def trial(reference: Reference, workdir: Path, rng: random.Random) -> Outcome:
    batch = rng.randrange(EVERY + 1, reference.last * 3 // 5)
    run = reference.again(workdir, STUCK=f"0:{batch}:{seconds}", HASTE=str(haste))
    run.start()
    codes, said = run.wait(), run.said()
    told = re.search(rf"process 0 \(\S+\) hangs in the input of step {batch + 1}\b", said)
    went_on = re.search(r"process 0 \(\S+\) goes on, after (\d+) s", said)
    outcome = reference.ended(run, codes, note=went_on[0] if went_on else "")
    return dataclasses.replace(outcome, survived=bool(outcome.survived and told and went_on))

  return trial


def _devices(count: int) -> int:
  """Of each process: four in all where there are several."""
  return 4 // count if count > 1 else 1


def _began(run: Run, victim: int) -> float:
  found = re.search(r"stuck at (\S+)", run.said(victim))
  return float(found[1]) if found else 0.0


def _named(run: Run, victim: int, what: str, by: range | list[int]) -> bool:
  """Whether these processes have said so, once they have, or have ended."""
  end = time.monotonic() + PATIENCE
  told = lambda index: re.search(rf"process {victim} \(\S+\) {what}", run.said(index))  # noqa: E731
  while time.monotonic() < end:
    alive = any(run.processes[index].poll() is None for index in by)
    if all(told(index) for index in by):
      return True
    if not alive:
      break
    time.sleep(0.1)
  return False


def _goes_on(reference: Reference, workdir: Path, count: int, last: int, told: bool, note: str) -> Outcome:
  """Of the same command, without the fault."""
  run = reference.again(workdir)
  run.start(processes=count, devices=_devices(count))
  codes = run.wait()
  lost = [last - run.resumed_at()]
  if count == 1:
    outcome = reference.ended(run, codes, lost=lost, note=note)
  else:
    outcome = dataclasses.replace(compared(reference, run, codes), lost=lost)
    outcome.note = f"{outcome.note}, {note}"
  return dataclasses.replace(outcome, survived=outcome.survived and told)
