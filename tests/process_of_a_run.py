"""One process of several, for tests: sums over all devices step by step, and meets what its arguments say.

python -m tests.process_of_a_run [steps=N] [WHAT=I@STEP …]: feeds rows that do not lie together, then ends well after N
steps, or goes on until it is asked to stop. At a step process I does WHAT: `kill` kills it, `exception` and `mistake`
raise, `busy` keeps it from its next step, `fork` starts a worker that outlives it; `mistakes` raises in every process,
in I half a second later.
"""

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
from omniimage.distributed.mesh import axes, batch_sharding, global_batch, local_rows
from omniimage.errors import UserError


class Run:
  """Processes of this program or of another module, two CPU devices each, as a context: none outlives it."""

  def __init__(self, count: int, *argv: str, module: str = "tests.process_of_a_run"):
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
        command = [sys.executable, "-m", module, *argv]
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
  steps = int(events.pop("steps", 10**6))
  with processes.joined(), preemption.notice() as asked_to_stop:
    sharding = NamedSharding(jax.make_mesh((jax.device_count(),), ("data",)), PartitionSpec("data"))
    total = jax.jit(jnp.sum)
    feed_rows_apart()
    for step in range(1, steps + 1):
      ones = jax.make_array_from_process_local_data(sharding, jnp.ones(jax.local_device_count()))
      print(f"step {step} sum {float(total(ones)):.0f}", flush=True)
      time.sleep(0.02)
      for what, when in events.items():
        index, at = map(int, when.split("@"))
        if at == step:
          happen(what, index)
      if asked_to_stop(step):
        raise preemption.Preempted(step)


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


def happen(what: str, index: int):
  if what == "mistakes":
    time.sleep(0.5 * (index == jax.process_index()))
    raise UserError("of every process")
  if index != jax.process_index():
    return
  if what == "kill":
    print(f"killed at {time.time()}", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
  elif what == "exception":
    raise ValueError("of this process alone")
  elif what == "mistake":
    raise UserError("of this process alone")
  elif what == "busy":
    time.sleep(1000)
  elif what == "fork" and os.fork() == 0:
    time.sleep(10)
    os._exit(0)


if __name__ == "__main__":
  cli.mendable(main)(sys.argv)
