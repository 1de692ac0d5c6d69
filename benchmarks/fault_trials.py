"""The trials of `benchmarks.faults`: what is done to a run, and how it ends."""

import atexit
import contextlib
import dataclasses
import functools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from etils import epath

from benchmarks.faulty import EVERY
from omniimage import strict_json

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # of the process that compares what the runs have left
ROOT = Path(__file__).resolve().parents[1]
RUN_AGAIN = 75  # exit code
MOST_KILLS = 200  # of one run
PATIENCE = 300  # seconds that any process may take
NOTICED = 60  # seconds within which the processes left alone must have stopped
RTOL = 1e-5  # of losses on another mesh


@dataclasses.dataclass
class Outcome:
  """Attributes:
  survived: the same command ended the run, and said what it should on the way.
  times: that the fault was done to this run.
  lost: steps that had to be made again, each time.
  during_saves: kills that found a checkpoint half written.
  bitwise: whether it ended as the reference; None where it cannot.
  note: for the table.
  """

  survived: bool
  times: int = 1
  lost: list[int] = dataclasses.field(default_factory=list)
  during_saves: int = 0
  bitwise: bool | None = None
  note: str = ""


class Run:
  """A workdir and the processes that train it."""

  def __init__(
    self, workdir: Path | epath.Path, flags: tuple[str, ...] = (), logs: Path | None = None, **environment: str
  ):
    self.workdir, self.processes, self._logs_beside = workdir, [], logs or workdir
    self._flags, self._environment = flags, environment

  def start(self, *more: str, processes: int = 1, devices: int = 1, mesh: Mapping[str, int] | None = None):
    """Starts the command, with more flags, on each of so many processes with so many devices."""
    axes = [f"--config.mesh.{axis}={size}" for axis, size in (mesh or {}).items()]
    command = [sys.executable, "-m", "launch.train", "--config=benchmarks/faulty.py", f"--workdir={self.workdir}"]
    command += [*self._flags, *axes, *more]
    flags = " ".join(flag for flag in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in flag)
    environment = {**os.environ, **self._environment, "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}"
    environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "jax"))
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    address = f"127.0.0.1:{free_port()}"
    self.processes, self.logs = [], []
    for index in range(processes):
      if processes > 1:
        environment |= {
          "JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(processes), "JAX_PROCESS_ID": str(index)
        }  # fmt: skip
      log = self._logs_beside.with_name(f"{self._logs_beside.name}.{index}.log")
      with log.open("a") as file:
        self.processes.append(subprocess.Popen(command, env=environment, cwd=ROOT, stdout=file, stderr=file))
        atexit.register(self.processes[-1].kill)
      self.logs.append((log, log.stat().st_size))

  def wait(self) -> list[int]:
    """The exit codes, when all processes have ended."""
    try:
      return [process.wait(PATIENCE) for process in self.processes]
    except subprocess.TimeoutExpired:
      self.kill()
      return [process.wait() for process in self.processes]

  def kill(self):
    for process in self.processes:
      process.kill()

  def said(self, index: int = 0) -> str:
    """What a process printed, of those that `start` has started last."""
    log, begin = self.logs[index]
    return log.read_bytes()[begin:].decode(errors="replace")

  def alive(self) -> bool:
    return any(process.poll() is None for process in self.processes)

  def wait_for(self, step: int) -> bool:
    """Whether the metrics of a step came while the processes lived."""
    while self.alive():
      if self.last_step() >= step:
        return True
      time.sleep(0.01)
    return False

  def last_step(self) -> int:
    lines = self.metrics()
    return lines[-1]["step"] if lines else 0

  def metrics(self) -> list[dict]:
    lines = strict_json.read_lines(self.workdir / "metrics" / "metrics.jsonl")
    return [line for line in lines if {"step", "loss"} <= line.keys()]

  def losses(self) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in self.metrics()}

  def steps_saved(self) -> list[int]:
    from omniimage.checkpoint import Checkpoints

    return Checkpoints(self.workdir / "checkpoints").steps()

  def resumed_at(self) -> int:
    found = re.search(r"goes on from step (\d+)", self.said())
    return int(found[1]) if found else 0

  def arrays(self) -> dict[str, np.ndarray]:
    """Every array of the last checkpoint, by its path."""
    import jax

    from omniimage.checkpoint import Checkpoints

    checkpoints = Checkpoints(self.workdir / "checkpoints")
    last = checkpoints.latest()
    return jax.device_get(checkpoints.restore(last, checkpoints.shapes(last)))


def free_port() -> int:
  with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    return found.getsockname()[1]


@dataclasses.dataclass(frozen=True)
class Reference:
  """The run that nothing was done to.

  Attributes:
    flags: of its command.
    last: its last step.
    start_seconds: from the start of a process to its first step, when all is compiled.
    seconds: from the start of a process to its end.
  """

  run: Run
  flags: tuple[str, ...]
  last: int
  arrays: dict[str, np.ndarray]
  start_seconds: float
  seconds: float

  @classmethod
  def make(cls, workdir: Path, flags: tuple[str, ...] = ()) -> "Reference":
    for name in ("first", "second"):  # which finds all compiled
      run, began = Run(workdir / name, (*flags, f"--config.run.keep_every={EVERY}")), time.monotonic()
      run.workdir.mkdir(parents=True)
      run.start()
      run.wait_for(1)
      start_seconds = time.monotonic() - began
      if run.wait() != [0]:
        raise RuntimeError(f"the run that nothing is done to fails: {run.said()[-2000:]}")
    seconds = time.monotonic() - began
    return cls(run, flags, run.last_step(), run.arrays(), start_seconds, seconds)

  def again(self, workdir: Path | epath.Path, logs: Path | None = None, **environment: str) -> Run:
    """The same command, in another workdir."""
    return Run(workdir, self.flags, logs, **environment)

  def as_of(self, workdir: Path, step: int) -> Run:
    """A run that was stopped after a step: a copy, which takes no time to train."""
    later = {str(saved) for saved in range(step + 1, self.last + 1)} | {str(saved) for saved in range(step - 3 * EVERY)}
    shutil.copytree(self.run.workdir, workdir, ignore=lambda folder, names: later.intersection(names))
    lines = (workdir / "metrics" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (workdir / "metrics" / "metrics.jsonl").write_text("".join(lines[:step]))
    return self.again(workdir)

  def same_bits(self, run: Run) -> bool:
    return self.same_arrays(run) and run.losses() == self.run.losses()

  def same_arrays(self, run: Run) -> bool:
    found = run.arrays()
    bits = lambda array: (array.dtype, array.shape, array.tobytes())  # noqa: E731
    return found.keys() == self.arrays.keys() and all(bits(found[k]) == bits(self.arrays[k]) for k in found)

  def loss_difference(self, run: Run) -> float:
    """Relative, the largest of all steps; infinite if a step is missing."""
    mine, theirs = self.run.losses(), run.losses()
    if mine.keys() != theirs.keys():
      return float("inf")
    return max(abs(theirs[step] - loss) / abs(loss) for step, loss in mine.items())

  def ended(self, run: Run, codes: list[int], **outcome) -> Outcome:
    """The outcome of a run that should have ended with the bits of the reference."""
    if codes != [0]:
      return Outcome(False, bitwise=False, **{**outcome, "note": run.said()[-300:]})
    return Outcome(bitwise=self.same_bits(run), survived=True, **outcome)


def killed(reference: Reference, workdir: Path, rng: random.Random, run: Run | None = None) -> Outcome:
  run, lost, last, kills, saving = run or reference.again(workdir), [], None, 0, 0
  while True:
    run.start()
    moment = rng.uniform(0.8 * reference.start_seconds, reference.seconds)
    with contextlib.suppress(subprocess.TimeoutExpired):
      run.processes[0].wait(moment)
    if last is not None and "goes on from step" in run.said():
      lost.append(last - run.resumed_at())
    if not run.alive():
      break
    run.kill()
    run.wait()
    last = run.last_step()
    saving += any((run.workdir / "checkpoints").glob("saving.*"))
    kills += 1
    if kills > MOST_KILLS:
      return Outcome(False, times=kills, lost=lost, note="never ended")
  return reference.ended(run, run.wait(), times=kills, lost=lost, during_saves=saving)


def terminated(reference: Reference, workdir: Path, rng: random.Random) -> Outcome:
  run = reference.again(workdir)
  run.start()
  run.wait_for(rng.randrange(1, reference.last * 3 // 5))
  run.processes[0].send_signal(signal.SIGTERM)
  codes = run.wait()
  last = run.last_step()
  run.start()
  ended = run.wait()
  outcome = reference.ended(run, ended, lost=[last - run.resumed_at()])
  return dataclasses.replace(outcome, survived=outcome.survived and codes == [RUN_AGAIN] and outcome.lost == [0])


def stopped_at(run: Run, step: int, **start):
  """A run that is asked to stop after a step."""
  run.start(**start)
  run.wait_for(step)
  run.processes[0].send_signal(signal.SIGTERM)
  if set(run.wait()) != {RUN_AGAIN}:
    raise RuntimeError(f"the run did not stop as asked: {run.said()[-500:]}")


def damaged(how: str) -> Callable:
  def trial(reference: Reference, workdir: Path, rng: random.Random) -> Outcome:
    run = reference.as_of(workdir, rng.randrange(2 * EVERY, reference.last * 3 // 5))
    before, last = run.steps_saved()[-2:]
    folder = workdir / "checkpoints" / str(last)
    file = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size))
    whole = file.read_bytes()
    if how == "removed":
      file.unlink()
    elif how == "truncated":
      file.write_bytes(whole[: rng.randrange(len(whole))])
    else:
      place = rng.randrange(len(whole))
      file.write_bytes(whole[:place] + bytes([whole[place] ^ rng.randrange(1, 256)]) + whole[place + 1 :])
    run.start()
    codes = run.wait()
    outcome = reference.ended(run, codes, lost=[last - run.resumed_at()])
    noticed = run.resumed_at() == before and (str(last) in run.said())
    outcome.note = outcome.note if noticed else f"{file.name} {how}: not noticed"
    return dataclasses.replace(outcome, survived=outcome.survived and noticed)

  return trial


def disk_full(reference: Reference, workdir: Path, rng: random.Random) -> Outcome:
  """Room for two checkpoints and a part of a third. The command must say so, and go on when there is room."""
  one = sum(
    path.stat().st_size for path in (reference.run.workdir / "checkpoints" / str(reference.last - EVERY)).rglob("*")
  )
  disk = workdir.with_name(f"{workdir.name}-disk")
  with small_disk(disk, int(rng.uniform(2.2, 2.9) * one) + 2**17) as resize:
    run = reference.again(disk / "run", logs=workdir)
    run.start()
    codes, said, last = run.wait(), run.said(), run.last_step()
    saved, at_length = run.steps_saved(), "Traceback" in (disk / "run" / "logs" / "0.log").read_text()
    resize(40 * one)
    run.start()
    outcome = reference.ended(run, run.wait(), lost=[last - run.resumed_at()], note=_error(said))
    clean = codes == [2] and one_error(said, "space|RESOURCE_EXHAUSTED")
    went_on = bool(saved) and run.resumed_at() == saved[-1]
    return dataclasses.replace(outcome, survived=outcome.survived and clean and at_length and went_on)


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Callable[[int], None]]:
  """A file system of so many bytes; yields what changes its size. Needs root."""
  folder.mkdir(parents=True)
  command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
  subprocess.run(command, check=True, capture_output=True)
  try:
    yield lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)
  finally:
    subprocess.run(["umount", "-l", str(folder)], check=True)


def read_only(reference: Reference, workdir: Path, rng: random.Random) -> Outcome:
  """All of the workdir refuses writing, from some step on. A read-only mount would need it to have no open files."""
  run = reference.again(workdir)
  run.start()
  run.wait_for(rng.randrange(1, reference.last * 3 // 5))
  immutable(workdir, "+i")
  codes, said, last = run.wait(), run.said(), run.last_step()
  run.start()
  again, said_again = run.wait(), run.said()
  immutable(workdir, "-i")
  run.start()
  outcome = reference.ended(run, run.wait(), lost=[last - run.resumed_at()], note=_error(said))
  clean = codes == again == [2] and all(one_error(s, "not permitted|PERMISSION_DENIED") for s in (said, said_again))
  return dataclasses.replace(outcome, survived=outcome.survived and clean)


def immutable(folder: Path, flag: str):
  """Needs root, and a file system that can do it."""
  subprocess.run(["chattr", "-R", "-f", flag, str(folder)], check=False)


def one_error(said: str, problem: str) -> bool:
  """Whether a process printed one line with this problem, and beside it nothing but its progress."""
  lines = [line for line in said.splitlines() if line and not re.match(r"\w+ \d+/\d+: |goes on from step ", line)]
  return len(lines) == 1 and bool(re.match(f"error: .*({problem})", lines[0]))


def _error(said: str) -> str:
  found = re.findall(r"^error: (.*)$", said, re.MULTILINE)
  return re.sub(r"/\S*/", "…/", found[-1])[:160] if found else "no error was printed"


def other_mesh(first: tuple[int, dict], then: tuple[int, dict]) -> Callable:
  """The run goes on from its middle with other devices and axes: (devices, mesh)."""

  def trial(reference: Reference, workdir: Path, rng: random.Random) -> Outcome:
    run = reference.again(workdir)
    stopped_at(run, rng.randrange(reference.last // 4, reference.last * 3 // 4), devices=first[0], mesh=first[1])
    run.start(devices=then[0], mesh=then[1])
    return compared(reference, run, run.wait())

  return trial


def other_hosts(first: int, then: int) -> Callable:
  """The run goes on from its middle with another number of processes; each reads its own rows alone."""

  def trial(reference: Reference, workdir: Path, rng: random.Random) -> Outcome:
    notes = workdir.with_name(f"{workdir.name}-records")
    notes.mkdir()
    run = reference.again(workdir, RECORDS=str(notes))
    stopped_at(run, rng.randrange(reference.last // 4, reference.last * 3 // 4), processes=first, devices=4 // first)
    run.start(processes=then, devices=4 // then)
    outcome = compared(reference, run, run.wait())
    same = _same_records(reference, notes, run)
    note = f"{outcome.note}, records {'the same' if same else 'DIFFER'}"
    return dataclasses.replace(outcome, survived=outcome.survived and same, note=note)

  return trial


def _same_records(reference: Reference, notes: Path, run: Run) -> bool:
  """Each batch was read whole by some group of processes, each row with the reference's records."""
  expected = _expected_records()
  rows: dict[int, set] = {}
  for file in notes.glob("*.jsonl"):
    for line in file.read_text().splitlines():
      batch_index, read = json.loads(line)
      for row, records in read.items():
        if records != expected(batch_index)[int(row)]:
          return False
        rows.setdefault(batch_index, set()).add(int(row))
  return all(rows.get(index) == set(range(8)) for index in range(reference.last))


@functools.cache
def _expected_records() -> Callable[[int], list[list[int]]]:
  from benchmarks.faulty import forty_steps
  from omniimage.data.batches import Batches
  from omniimage.data.sources import open_source
  from omniimage.data.text import TextTokenizer
  from omniimage.models.omni import Omni
  from omniimage.settings import from_config

  s, text_tokenizer = from_config(forty_steps()), TextTokenizer.load()
  vocabulary = Omni(s, text_tokenizer.size).vocabulary
  source = open_source(s.data, "train", s.buckets, text_tokenizer, vocabulary)
  batches = Batches(source, s.data, vocabulary, text_tokenizer, s.buckets, s.seed)
  return functools.cache(lambda index: batches.record_ids(index, 8))


def compared(reference: Reference, run: Run, codes: list[int]) -> Outcome:
  """The outcome of a run that should have ended with the reference's losses."""
  if set(codes) != {0}:
    return Outcome(False, note=f"exit codes {codes}: {run.said()[-300:]}")
  difference = reference.loss_difference(run)
  return Outcome(difference <= RTOL, note=f"losses within {difference:.0e}")


def one_dies(count: int) -> Callable:
  """One of several processes is killed; the others must stop and name it, and one process fewer goes on."""

  def trial(reference: Reference, workdir: Path, rng: random.Random) -> Outcome:
    run = reference.again(workdir)
    run.start(processes=count, devices=4 // count)
    run.wait_for(rng.randrange(EVERY + 1, reference.last * 3 // 5))
    victim, began = rng.randrange(count), time.monotonic()
    run.processes[victim].kill()
    codes = run.wait()
    seconds, last = time.monotonic() - began, run.last_step()
    others = [index for index in range(count) if index != victim]
    told = all(codes[i] == RUN_AGAIN and re.search(rf"process {victim}\b", run.said(i)) for i in others)
    run.start(processes=count // 2, devices=8 // count)
    outcome = compared(reference, run, run.wait())
    good = outcome.survived and told and seconds < NOTICED
    note = f"{outcome.note}, process {victim} of {count}: others stopped after {seconds:.1f} s"
    return dataclasses.replace(outcome, survived=good, lost=[last - run.resumed_at()], note=note)

  return trial


def not_finite(count: int, roll_back_after: int = 10) -> Callable:
  """Gradients that are not finite, and a kill after them: the run must end as one with the same faults and no kill."""
  flag = f"--config.faults.roll_back_after={roll_back_after}"

  def trial(reference: Reference, workdir: Path, rng: random.Random) -> Outcome:
    first = rng.randrange(EVERY + 1, reference.last - count - 1)
    workdirs = [workdir.with_name(f"{workdir.name}-{name}") for name in ("whole", "killed")]
    runs = [Run(folder, (*reference.flags, flag), NAN_BATCHES=f"{first}:{count}") for folder in workdirs]
    runs[0].start()
    codes = runs[0].wait()
    runs[1].start()
    runs[1].wait_for(first + rng.randrange(count + 2))
    runs[1].kill()
    runs[1].wait()
    runs[1].start()
    codes += runs[1].wait()
    if codes != [0, 0]:
      return Outcome(False, note=f"exit codes {codes}: {runs[0].said()[-300:]}")
    whole = runs[0].arrays()
    again = runs[1].arrays()
    bitwise = all(whole[name].tobytes() == again[name].tobytes() for name in whole)
    faults = [json.loads(line) for line in (runs[0].workdir / "metrics" / "faults.jsonl").read_text().splitlines()]
    skipped = [fault["batch_index"] for fault in faults if fault["fault"] == "not finite"]
    back = [fault for fault in faults if fault["fault"] == "roll back"]
    right = skipped == list(range(first, first + count)) and len(back) == (count >= roll_back_after)
    finite = all(np.isfinite(array).all() for name, array in whole.items() if "losses" not in name)
    note = f"batches {first}–{first + count - 1} skipped" + (f", back to step {back[0]['checkpoint']}" if back else "")
    return Outcome(bool(right and finite), bitwise=bitwise, note=note)

  return trial
