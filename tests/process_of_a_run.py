"""One process of several, for tests: sums over all devices step by step, and meets what its arguments say.

python -m tests.process_of_a_run logs=FOLDER [steps=N] [end=SECONDS] [WHAT=I@STEP …]: feeds rows that do not lie
together, then ends well after N steps, or goes on until it is asked to stop. With `end` who hangs is named sooner than
in earnest; if it is not 0, the run ends once a process hangs for so long. At a step process I does WHAT: `kill` kills
it, `stop` stops it, `exception` and `mistake` raise, `busy` keeps it from its next step, `read` from its next input,
`slow` does so for six seconds, `fork` starts a worker that outlives it; `mistakes` raises in every process, in I half a
second later.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.fault_trials import free_port
from launch import cli, processes
from omniimage.distributed import preemption, watch
from omniimage.distributed.agree import number_of_each
from omniimage.distributed.mesh import axes, batch_sharding, global_batch, local_rows
from omniimage.errors import UserError
from omniimage.training import hangs
from omniimage.training.accounts import Accounts
from omniimage.training.log_file import LogFile

THIS = "tests.process_of_a_run"


class Run:
  """Processes of this program or of another module, two CPU devices each, as a context: none outlives it."""

  def __init__(self, count: int, *argv: str, module: str = THIS):
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in flag]
    environment = {
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "XLA_FLAGS": " ".join([*flags, "--xla_force_host_platform_device_count=2"]),
      "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}",
      "JAX_NUM_PROCESSES": str(count),
    }
    self._folder = tempfile.TemporaryDirectory()
    self._logs = [Path(self._folder.name) / str(index) for index in range(count)]
    self.processes = []
    for index, log in enumerate(self._logs):
      with log.open("w") as file:
        own = [f"logs={self._folder.name}/logs"] if module == THIS else []
        command = [sys.executable, "-m", module, *own, *argv]
        environment["JAX_PROCESS_ID"] = str(index)
        self.processes.append(subprocess.Popen(command, env=environment, stdout=file, stderr=file))

  def __enter__(self) -> "Run":
    return self

  def __exit__(self, *_):
    for process in self.processes:
      process.kill()
      process.wait()

  def codes(self, seconds: float = 40) -> list[int]:
    end = time.monotonic() + seconds
    return [process.wait(max(end - time.monotonic(), 0.01)) for process in self.processes]

  def said(self) -> list[str]:
    return [log.read_text() for log in self._logs]

  def logged(self, index: int) -> str:
    """What a process has in its log file."""
    return (Path(self._folder.name) / "logs" / f"{index}.log").read_text()

  def last_step(self, index: int) -> int:
    steps = [line.split()[1] for line in self.said()[index].splitlines() if line.startswith("step ")]
    return int(steps[-1]) if steps else 0

  def wait_for(self, step: int):
    while any(self.last_step(index) < step for index in range(len(self.processes))):
      assert all(process.poll() is None for process in self.processes), self.said()
      time.sleep(0.05)


def main(argv: list[str]):
  events = dict(argument.split("=") for argument in argv[1:])
  watch.OWN_ERROR = 2.0  # sooner than in earnest
  if "end" in events:
    hangs.BEAT, hangs.SILENT, hangs.FLOOR, hangs.LATER, hangs.GIVEN_UP = 0.3, 3.0, 4.0, 6.0, 8.0
  steps, end, logs = int(events.pop("steps", 10**6)), float(events.pop("end", 0)), Path(events.pop("logs"))
  with processes.joined(), preemption.notice() as asked_to_stop, watched(logs, end) as accounts:
    sharding = NamedSharding(jax.make_mesh((jax.device_count(),), ("data",)), PartitionSpec("data"))
    total = jax.jit(jnp.sum)
    feed_rows_apart()
    assert number_of_each(jax.process_index()).tolist() == list(range(jax.process_count()))
    for step in range(1, steps + 1):
      accounts.turn_to("input", step)
      happen(events, step, HAPPENS_TO_INPUT)
      accounts.turn_to("steps")
      ones = jax.make_array_from_process_local_data(sharding, jnp.ones(jax.local_device_count()))
      print(f"step {step} sum {float(total(ones)):.0f}", flush=True)
      time.sleep(0.02)
      happen(events, step, HAPPENS)
      if asked_to_stop(step):
        raise preemption.Preempted(step)


@contextlib.contextmanager
def watched(logs: Path, end: float):
  accounts, log = Accounts(), LogFile(logs / f"{jax.process_index()}.log")
  with contextlib.closing(log), contextlib.closing(hangs.Hangs(accounts, log, end)):
    yield accounts


def feed_rows_apart():
  """Where the devices of the processes alternate along `data`, each row reaches its device all the same."""
  devices = np.reshape(sorted(jax.devices(), key=lambda device: device.process_index), (jax.process_count(), -1))
  sharding = batch_sharding(Mesh(devices.T.reshape(-1, 1, 1, 1), axes))
  rows = 2 * devices.size
  own = local_rows(rows, sharding)
  assert np.any(np.diff(own) > 1) and len(own) == rows // jax.process_count(), own
  placed = global_batch({"row": own}, sharding)["row"]
  for shard in placed.addressable_shards:
    np.testing.assert_array_equal(shard.data, np.arange(rows)[shard.index])


def happen(events: dict[str, str], step: int, what_happens: dict):
  for what, when in events.items():
    index, at = map(int, when.split("@"))
    if what in what_happens and at == step and (index == jax.process_index() or what == "mistakes"):
      what_happens[what](index)


def die(index: int):
  print(f"killed at {time.time()}", flush=True)
  os.kill(os.getpid(), signal.SIGKILL)


def stop(index: int):
  print(f"stopped at {time.time()}", flush=True)
  os.kill(os.getpid(), signal.SIGSTOP)


def raise_own(kind: type):
  def raises(index: int):
    raise kind("of this process alone")

  return raises


def mistakes(index: int):
  time.sleep(0.5 * (index == jax.process_index()))
  raise UserError("of every process")


def fork(index: int):
  if os.fork() == 0:
    time.sleep(10)
    os._exit(0)


def stuck_in_a_read(seconds: float):
  time.sleep(seconds)


HAPPENS_TO_INPUT = {"read": lambda index: stuck_in_a_read(1000), "slow": lambda index: stuck_in_a_read(6)}
HAPPENS = {
  "kill": die,
  "stop": stop,
  "exception": raise_own(ValueError),
  "mistake": raise_own(UserError),
  "mistakes": mistakes,
  "busy": lambda index: time.sleep(1000),
  "fork": fork,
}


if __name__ == "__main__":
  cli.mendable(main)(sys.argv)
