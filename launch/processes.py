"""Joins the processes of a run, and lets them end together.

A run has several on the hosts of a TPU slice or of several slices, where JAX finds address, number and index of the
processes by itself. What it does not say beforehand is whether there are several; this file asks where JAX asks: the
environment on Kubernetes, the metadata server on Compute Engine.

Anywhere else, as on CPUs, the environment says it, the same everywhere but for the last:

  JAX_COORDINATOR_ADDRESS=10.0.0.1:8482 JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=0 python -m launch.train …

Otherwise there is one process, and nothing to do.
"""

import atexit
import contextlib
import importlib.util
import os
import re
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping

import jax
from jax._src import distributed  # the key-value store has no public name

from omniimage import signals
from omniimage.distributed import watch
from omniimage.distributed.preemption import Preempted
from omniimage.distributed.watch import NotJoined
from omniimage.errors import UserError

ADDRESS, NUMBER, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
JOIN_SECONDS = 300.0  # for all processes to be started
SHUTDOWN_SECONDS = 30  # for the end of the run, once all have reached it
LAST_WORDS = 15.0  # seconds that a process with an error may take to end


@contextlib.contextmanager
def joined() -> Iterator[None]:
  """Joins this process with the others, if there are others, for as long as the block lasts. Enter it before any device
  is used, and let it hold all that can fail; the process should end after it.

  The block ends in all of them together. If a process dies instead, or ends with an error, the others end with
  exit code 75, wherever they are, and the run can go on where all are started again. Raises NotJoined, and UserError
  where the environment makes no sense.
  """
  if not initialize():
    yield
    return
  state, stopped = distributed.global_state, None
  try:
    watching = watch.begin(state.client, state.process_id, state.num_processes, state.coordinator_address)
  except NotJoined as error:
    _end_alone(error)
    raise
  try:
    try:
      yield
    except Preempted as error:  # in all processes
      stopped = error
    watching.done()
  except BaseException as error:
    watching.failed(error)
    _end_alone(error)
    raise
  jax.distributed.shutdown()
  if stopped:
    raise stopped


def end_at_once():
  """Where several processes have joined, SIGTERM ends this one where it stands from now on, as it does where there is
  one: for commands that have nothing to save. JAX's own handler only notes that it came."""
  if jax.distributed.is_initialized():
    signal.signal(signal.SIGTERM, signals.end)


def _end_alone(error: BaseException):
  """Lets this process end with its error, but not wait for the others, as JAX does at exit."""
  match error:
    case UserError():
      code = error.exit_code
    case KeyboardInterrupt():
      code = 130
    case SystemExit(code=int(code)):
      pass
    case _:
      code = 1

  def end():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

  atexit.register(end)  # the last that is registered is called first
  timer = threading.Timer(LAST_WORDS, end)  # for threads that hang
  timer.daemon = True
  timer.start()


def initialize() -> bool:
  """Whether this process is one of several; these are then joined. Call it before any device is used."""
  explicit = from_environment(os.environ)
  count = explicit["num_processes"] if explicit else process_count()
  if count == 1:
    return False
  if jax.distributed.is_initialized():
    return True
  port = explicit["coordinator_address"].rpartition(":")[2] if explicit else 8482
  how = f"with {INDEX}=0 to {count - 1}" if explicit else "as launch/tpu/train.sh does"
  advice = f"start the same command on every host, {how}, and let them reach one another on port {port}"
  with _deadline(f"this process waited {JOIN_SECONDS:.0f} s for the {count} of the run; {advice}"):
    try:
      # Heartbeats keep their 100 s: the watch learns of deaths sooner, and a busy process must not be taken for dead.
      jax.distributed.initialize(
        **explicit, initialization_timeout=int(JOIN_SECONDS) + 60, shutdown_timeout_seconds=SHUTDOWN_SECONDS
      )
    except Exception as error:  # of the metadata, the network or the coordinator; all say it in their own way
      reason = " ".join(str(error).split())[:300] or type(error).__name__
      raise NotJoined(f"this process could not join the {count} of the run: {reason}; {advice}") from error
  return True


@contextlib.contextmanager
def _deadline(message: str) -> Iterator[None]:
  """Ends the process where joining takes too long: JAX would abort it, with a stack trace."""

  def give_up():
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(NotJoined.exit_code)

  timer = threading.Timer(JOIN_SECONDS, give_up)
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


def from_environment(environment: Mapping[str, str]) -> dict:
  """What the three variables say, as `jax.distributed.initialize` takes it; empty where they are not set.

  JAX itself reads the address, and so may others who set it for TPUs; alone it is left to JAX where there are any.
  """
  given = {name: environment[name].strip() for name in (ADDRESS, NUMBER, INDEX) if environment.get(name, "").strip()}
  if not given or (list(given) == [ADDRESS] and process_count() > 1):
    return {}
  if missing := [name for name in (ADDRESS, NUMBER, INDEX) if name not in given]:
    raise UserError(
      f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} set, but {' and '.join(missing)} not; to join "
      f"several processes set all three in each, as in {ADDRESS}=10.0.0.1:8482 {NUMBER}=2 {INDEX}=0, or none of them"
    )
  if not re.fullmatch(r"\S+:\d{1,5}", given[ADDRESS]):
    raise UserError(f"{ADDRESS}={given[ADDRESS]} is no HOST:PORT; give that of process 0, as in 10.0.0.1:8482")
  count, index = _whole(NUMBER, given[NUMBER], 1), _whole(INDEX, given[INDEX], 0)
  if index >= count:
    raise UserError(f"{INDEX}={index} is too large for {NUMBER}={count}; processes are numbered 0 to {count - 1}")
  return {
    "coordinator_address": given[ADDRESS],
    "num_processes": count,
    "process_id": index,
    "cluster_detection_method": "deactivate",
  }


def _whole(name: str, value: str, least: int) -> int:
  if not value.isdecimal() or int(value) < least:
    raise UserError(f"{name}={value} is not a whole number from {least}")
  return int(value)


def process_count() -> int:
  """Hosts of a TPU slice times slices; 1 where there is no TPU, or where JAX is told not to use it."""
  if jax.config.jax_platforms and "tpu" not in jax.config.jax_platforms.split(","):
    return 1
  hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES")
  slices = os.environ.get("MEGASCALE_NUM_SLICES")
  if hosts is None and _may_be_tpu_vm():
    hosts = _metadata("worker-network-endpoints")
    found = re.search(r"MEGASCALE_NUM_SLICES:\s*'?(\d+)", _metadata("tpu-env") or "") if hosts else None
    slices = slices or (found and found[1])
  return len((hosts or "").split(",")) * int(slices or 1)


def _may_be_tpu_vm() -> bool:
  """JAX sets TPU_SKIP_MDS_QUERY where it sees no chips; Kubernetes and Colab set it for all their hosts."""
  return importlib.util.find_spec("libtpu") is not None and "TPU_SKIP_MDS_QUERY" not in os.environ


def _metadata(attribute: str, tries: int = 5) -> str | None:
  """An attribute of this host; None where it has none, or where there is no metadata server."""
  server = os.environ.get("GCE_METADATA_IP", "metadata.google.internal")
  url = f"http://{server}/computeMetadata/v1/instance/attributes/{attribute}"
  request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
  for attempt in range(tries):
    try:
      with urllib.request.urlopen(request, timeout=10) as response:
        return response.read().decode()
    except urllib.error.HTTPError as error:
      if error.code == 404:
        return None
      problem = f"{error.code} {error.reason}"
    except urllib.error.URLError:  # no such server: not on Compute Engine
      return None
    except OSError as error:
      problem = str(error)
    time.sleep(0.1 * 2**attempt)
  raise UserError(f"the metadata server of this host does not say {attribute} ({problem}); start the command again")
