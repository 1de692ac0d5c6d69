"""A thousand prompts drawn over 1, 2 and 4 processes, two of which are killed on the way: is each picture drawn once,
none missing, and the same whoever draws it?

python -m benchmarks.many_prompts [--prompts=1000 --batch=8]

The model is untrained and as small as that of benchmarks.faults; what is tried does not depend on it. Each trial is
`launch.sample --prompts` in so many processes of one CPU device each. When a random share of the pictures is there, a
random process is killed; all others must end with exit code 75, and the same command is started again. Every process
notes which pictures it writes.
"""

import collections
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags, logging

from benchmarks.fault_trials import ROOT, RUN_AGAIN, free_port

PROMPTS = flags.DEFINE_integer("prompts", 1000, "How many.")
BATCH = flags.DEFINE_integer("batch", 8, "Pictures that a process draws at once.")
PROCESSES, KILLS = (1, 2, 4), ((0.1, 0.4), (0.5, 0.8))  # shares of the pictures between which each kill comes
PATIENCE = 1800  # seconds that any process may take


def make_run(path: Path):
  """A run whose parameters are those that training begins with."""
  import jax

  from benchmarks.faulty import forty_steps
  from omniimage import seeds, versions
  from omniimage.checkpoint import Checkpoints
  from omniimage.data.text import TextTokenizer
  from omniimage.settings import from_config
  from omniimage.systems import open_system
  from omniimage.workdir import Workdir

  config, workdir, text = forty_steps(), Workdir(path), TextTokenizer.load()
  config.sampling.temperature = 1.0
  workdir.create()
  workdir.write_config(config.to_dict())
  params = open_system(from_config(config), text.size).init(seeds.key(0))
  with contextlib.closing(Checkpoints(workdir.checkpoints, keep=1)) as checkpoints:
    about = {"config": config.to_dict(), "vocabulary": text.fingerprint, "seconds": {}, "wall": {}}
    checkpoints.save(1, {"params": jax.device_get(params)}, versions.stamped(about))


def write_prompts(path: Path, count: int):
  from omniimage.data.scenes.world import COLORS, SHAPES

  rng = random.Random(0)
  phrase = lambda: f"a {rng.choice(('small', 'large'))} {rng.choice(list(COLORS))} {rng.choice(list(SHAPES))}"  # noqa: E731
  lines = [{"prompt": " and ".join(phrase() for _ in range(rng.randint(1, 2))), "seed": i} for i in range(count)]
  path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


class Trial:
  """A folder of pictures, and the processes that draw into it."""

  def __init__(self, place: Path, run: Path, prompts: Path, count: int, batch: int):
    self.out, self.notes, self.count = place / f"out{count}", place / f"notes{count}", count
    self.notes.mkdir()
    self._command = [
      sys.executable, "-m", "benchmarks.noted_sample", f"--workdir={run}", f"--prompts={prompts}",
      f"--out={self.out}", f"--batch={batch}",
    ]  # fmt: skip
    self.processes = []

  def start(self):
    flags_ = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in flag]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags_), "NOTES": str(self.notes)}
    environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "jax"))
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    address, self.processes = f"127.0.0.1:{free_port()}", []
    for index in range(self.count):
      if self.count > 1:
        environment |= {
          "JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(self.count), "JAX_PROCESS_ID": str(index)
        }  # fmt: skip
      with (self.notes / f"{index}.log").open("a") as log:
        self.processes.append(subprocess.Popen(self._command, env=environment, cwd=ROOT, stdout=log, stderr=log))

  def wait(self) -> list[int]:
    return [process.wait(PATIENCE) for process in self.processes]

  def there(self) -> int:
    return len(list(self.out.glob("*.png"))) if self.out.exists() else 0

  def written(self) -> collections.Counter:
    """How often each picture was written whole."""
    return collections.Counter(
      name for notes in self.notes.glob("*.txt") for name in notes.read_text().splitlines()
    )  # fmt: skip


def try_processes(trial: Trial, prompts: int, rng: random.Random) -> str:
  """A line of what came of it. RuntimeError where a process ends otherwise than it should."""
  drawn, unfinished = [], 0
  for least, most in KILLS:
    trial.start()
    share = rng.uniform(least, most)
    while trial.there() < share * prompts:
      if any(process.poll() is not None for process in trial.processes):
        raise RuntimeError(f"a process has ended by itself: {trial.wait()}; see {trial.notes}")
      time.sleep(0.05)
    victim = rng.randrange(trial.count)
    trial.processes[victim].kill()
    codes = trial.wait()
    if any(code != RUN_AGAIN for index, code in enumerate(codes) if index != victim):
      raise RuntimeError(f"process {victim} was killed, and the others end with {codes}; see {trial.notes}")
    drawn.append(trial.there())
    unfinished += len(list(trial.out.glob("*.tmp")))
  trial.start()
  if set(codes := trial.wait()) != {0}:
    raise RuntimeError(f"the processes end with {codes}; see {trial.notes}")
  written = trial.written()
  twice = sum(count > 1 for count in written.values())
  return (
    f"{trial.count} processes: {trial.there()} of {prompts} pictures, killed after {drawn[0]} and {drawn[1]}; {twice} "
    f"written twice; {unfinished} were cut by a kill"
  )


def main(argv: list[str]):
  del argv
  logging.set_verbosity(logging.WARNING)  # Orbax tells much
  place = Path(tempfile.mkdtemp(prefix="many_prompts."))
  run, prompts, rng = place / "run", place / "prompts.jsonl", random.Random(0)
  make_run(run)
  write_prompts(prompts, PROMPTS.value)
  contents = {}
  for count in PROCESSES:
    trial = Trial(place, run, prompts, count, BATCH.value)
    print(try_processes(trial, PROMPTS.value, rng), flush=True)
    contents[count] = {path.name: path.read_bytes() for path in trial.out.glob("*.png")}
  first = contents[PROCESSES[0]]
  differing = {count: sum(own[name] != first[name] for name in first) for count, own in contents.items()}
  print(f"pictures that differ from those of one process: {differing}; different ones: {len(set(first.values()))}")


if __name__ == "__main__":
  app.run(main)
