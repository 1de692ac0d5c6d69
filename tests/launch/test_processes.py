"""Processes join where there are several, and only there; they end together, and none waits for one that has died."""

import http.server
import os
import re
import socket
import subprocess
import sys
import threading
import time

import jax
import pytest

from launch import processes
from omniimage.distributed import watch
from omniimage.errors import UserError
from tests.process_of_a_run import Run, free_port

EXPLICIT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
ENVIRONMENT = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES", "MEGASCALE_NUM_SLICES", "TPU_SKIP_MDS_QUERY")


@pytest.fixture
def tpu_host(monkeypatch):
  """A host whose TPU library is there, whose JAX may use it, and of which nothing else is known."""
  for name in ENVIRONMENT:
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: name)
  before = jax.config.jax_platforms
  jax.config.update("jax_platforms", "tpu,cpu")
  yield monkeypatch
  jax.config.update("jax_platforms", before)


@pytest.fixture
def joined(monkeypatch):
  """Counts the calls of jax.distributed.initialize."""
  calls = []
  monkeypatch.setattr(jax.distributed, "initialize", lambda **settings: calls.append(settings))
  return calls


@pytest.fixture
def metadata(tpu_host):
  """The attributes that a metadata server of this test answers with; an int is the status of a failure."""
  attributes = {}

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      value = attributes.get(self.path.rpartition("/")[2], 404)
      if self.headers["Metadata-Flavor"] != "Google":
        value = 403
      self.send_response(value if isinstance(value, int) else 200)
      self.end_headers()
      self.wfile.write(b"" if isinstance(value, int) else value.encode())

    def log_message(self, *_):
      pass

  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
  tpu_host.setenv("GCE_METADATA_IP", f"127.0.0.1:{server.server_port}")
  tpu_host.setattr(processes.time, "sleep", lambda seconds: None)
  yield attributes
  server.shutdown()
  server.server_close()


def test_nothing_happens_on_a_cpu(joined, monkeypatch):
  monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a,b")  # not even on a host of a slice
  processes.initialize()
  assert jax.config.jax_platforms == "cpu" and not joined


def test_nothing_happens_without_a_tpu_library(joined, tpu_host):
  tpu_host.setattr(processes.importlib.util, "find_spec", lambda name: None)
  tpu_host.setattr(processes, "_metadata", lambda attribute: pytest.fail("asked the metadata server"))
  processes.initialize()
  assert not joined


def test_nothing_happens_where_jax_sees_no_chips(joined, tpu_host):
  tpu_host.setenv("TPU_SKIP_MDS_QUERY", "1")
  tpu_host.setattr(processes, "_metadata", lambda attribute: pytest.fail("asked the metadata server"))
  processes.initialize()
  assert not joined


def test_nothing_happens_on_colab(joined, tpu_host):
  tpu_host.setenv("TPU_WORKER_HOSTNAMES", "localhost")
  processes.initialize()
  assert not joined


def test_nothing_happens_on_a_single_host(joined, metadata):
  metadata["worker-network-endpoints"] = "unknown:unknown:10.0.0.2"
  processes.initialize()
  assert not joined


def test_nothing_happens_away_from_compute_engine(joined, tpu_host):
  tpu_host.setenv("GCE_METADATA_IP", "127.0.0.1:1")  # nobody listens there
  processes.initialize()
  assert not joined


@pytest.mark.parametrize("endpoints", ["t1v-n-0:8470:10.0.0.2,t1v-n-1:8470:10.0.0.3", "t1v-n-0,t1v-n-1"])
def test_hosts_of_a_slice_join(joined, metadata, endpoints):
  metadata["worker-network-endpoints"] = endpoints
  assert processes.process_count() == 2
  processes.initialize()
  assert len(joined) == 1


def test_single_host_slices_join(metadata):
  metadata.update({"worker-network-endpoints": "t1v-n-0", "tpu-env": "TYPE: 'V5LITE'\nMEGASCALE_NUM_SLICES: '4'\n"})
  assert processes.process_count() == 4


def test_slices_on_kubernetes_join(joined, tpu_host):
  tpu_host.setenv("TPU_WORKER_HOSTNAMES", "host-0,host-1,host-2,host-3")
  tpu_host.setenv("MEGASCALE_NUM_SLICES", "2")
  assert processes.process_count() == 8
  processes.initialize()
  assert len(joined) == 1


def test_a_second_call_does_nothing(joined, tpu_host):
  tpu_host.setenv("TPU_WORKER_HOSTNAMES", "a,b")
  tpu_host.setattr(jax.distributed, "is_initialized", lambda: True)
  processes.initialize()
  assert not joined


def test_a_failure_to_join_is_one_line(tpu_host):
  def fail(**settings):
    raise RuntimeError("DEADLINE_EXCEEDED: Barrier timed out.\nAdditional GRPC error information:\n…")

  tpu_host.setenv("TPU_WORKER_HOSTNAMES", "a,b")
  tpu_host.setattr(jax.distributed, "initialize", fail)
  with pytest.raises(UserError, match="could not join the 2 of the run: DEADLINE_EXCEEDED") as failed:
    processes.initialize()
  assert "\n" not in str(failed.value)


def test_a_broken_metadata_server_is_one_line(metadata):
  metadata["worker-network-endpoints"] = 503
  with pytest.raises(UserError, match="does not say worker-network-endpoints"):
    processes.initialize()


def test_two_processes_find_each_other_as_jax_does():
  """With JAX's own detection, on this machine: it takes the environment of two slices of one host for true."""
  program = (
    "import jax; from launch import processes; processes.initialize(); "
    "jax.config.update('jax_platforms', 'cpu'); print(jax.process_index(), jax.process_count())"
  )
  environment = {name: value for name, value in os.environ.items() if name not in ("JAX_PLATFORMS", "XLA_FLAGS")}
  environment |= {
    "JAX_FORCE_TPU_INIT": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "MEGASCALE_COORDINATOR_ADDRESS": "localhost",
    "MEGASCALE_NUM_SLICES": "2",
    "JAX_COORDINATOR_PORT": str(free_port()),
  }
  started = [
    subprocess.Popen(
      [sys.executable, "-c", program],
      env=environment | {"MEGASCALE_SLICE_ID": str(index)},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(2)
  ]
  try:
    said = [process.communicate(timeout=60) for process in started]
  finally:
    for process in started:
      process.kill()
  assert [out.split() for out, _ in said] == [["0", "2"], ["1", "2"]], said


@pytest.mark.parametrize("missing", EXPLICIT)
def test_an_incomplete_environment_names_what_is_missing(missing):
  environment = dict(zip(EXPLICIT, ("10.0.0.1:8482", "2", "0"), strict=True))
  del environment[missing]
  with pytest.raises(UserError, match=rf"are set, but {missing} not"):
    processes.from_environment(environment)


@pytest.mark.parametrize(
  ("address", "count", "index", "problem"),
  [
    ("10.0.0.1", "2", "0", "JAX_COORDINATOR_ADDRESS=10.0.0.1 is no HOST:PORT"),
    ("10.0.0.1:x", "2", "0", "JAX_COORDINATOR_ADDRESS=10.0.0.1:x is no HOST:PORT"),
    ("10.0.0.1:8482", "0", "0", "JAX_NUM_PROCESSES=0 is not a whole number from 1"),
    ("10.0.0.1:8482", "two", "0", "JAX_NUM_PROCESSES=two is not"),
    ("10.0.0.1:8482", "2", "-1", "JAX_PROCESS_ID=-1 is not a whole number from 0"),
    ("10.0.0.1:8482", "2", "2", "JAX_PROCESS_ID=2 is too large for JAX_NUM_PROCESSES=2; processes are numbered 0 to 1"),
  ],
)
def test_a_nonsensical_environment_says_what_is_wrong(address, count, index, problem):
  with pytest.raises(UserError, match=problem):
    processes.from_environment(dict(zip(EXPLICIT, (address, count, index), strict=True)))


def test_processes_of_the_environment_join_on_any_platform(joined, monkeypatch):
  for name, value in zip(EXPLICIT, ("10.0.0.1:8482", "2", "1"), strict=True):
    monkeypatch.setenv(name, value)
  assert processes.initialize()
  assert joined[0]["coordinator_address"] == "10.0.0.1:8482"
  assert (joined[0]["num_processes"], joined[0]["process_id"]) == (2, 1)


def test_a_single_process_of_the_environment_joins_nothing(joined, monkeypatch):
  for name, value in zip(EXPLICIT, ("10.0.0.1:8482", "1", "0"), strict=True):
    monkeypatch.setenv(name, value)
  with processes.joined():
    pass
  assert not joined


def test_a_coordinator_alone_is_left_to_jax_on_tpus_and_incomplete_elsewhere(joined, tpu_host):
  tpu_host.setenv("JAX_COORDINATOR_ADDRESS", "10.0.0.1:8482")
  tpu_host.setenv("TPU_WORKER_HOSTNAMES", "a,b")
  assert processes.initialize() and "coordinator_address" not in joined[0]
  tpu_host.setenv("TPU_WORKER_HOSTNAMES", "a")
  with pytest.raises(UserError, match="JAX_NUM_PROCESSES and JAX_PROCESS_ID not"):
    processes.initialize()


def test_a_process_whose_others_never_come_gives_up_in_one_line():
  program = "from launch import processes; processes.JOIN_SECONDS = 1.0; processes.initialize()"
  address = f"127.0.0.1:{free_port()}"
  environment = dict(zip(EXPLICIT, (address, "2", "0"), strict=True))
  done = subprocess.run([sys.executable, "-c", program], env=os.environ | environment, capture_output=True, text=True)
  assert done.returncode == 75 and "error: this process waited 1 s for the 2 of the run" in done.stderr
  assert address.rpartition(":")[2] in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("count", [2, 4])
def test_processes_feed_their_rows_sum_together_and_end_together_without_a_word(count):
  with Run(count, "steps=3") as run:
    assert run.codes() == [0] * count, run.said()
  lines = [line for said in run.said() for line in said.splitlines() if not line.startswith("[Gloo]")]
  assert lines == [f"step {step} sum {2 * count}" for step in (1, 2, 3)] * count


@pytest.mark.parametrize(
  ("count", "dies", "events"),
  [
    (2, 1, ["kill=1@5"]),  # the other is inside of a sum
    (2, 0, ["kill=0@5"]),
    (4, 2, ["kill=2@5"]),
    (2, 1, ["kill=1@5", "busy=0@5"]),  # the other is on the host
    (2, 0, ["kill=0@5", "busy=1@5"]),
    (2, 1, ["fork=1@2", "kill=1@5"]),  # with a worker process that holds what it has inherited
    (2, 0, ["fork=0@2", "kill=0@5"]),
  ],
)
def test_when_a_process_is_killed_all_others_end_and_name_it(count, dies, events):
  with Run(count, *events) as run:
    codes, ended = run.codes(), time.time()
  said = run.said()
  assert codes == [-9 if index == dies else 75 for index in range(count)], said
  assert ended - float(re.search(r"killed at (\S+)", said[dies])[1]) < 5
  for index in set(range(count)) - {dies}:
    assert re.search(rf"^error: process {dies} \(\S+\) died", said[index], re.MULTILINE), said[index]


@pytest.mark.parametrize(("event", "code"), [("exception", 1), ("mistake", 2)])
@pytest.mark.parametrize("fails", [0, 1])
def test_when_a_process_ends_with_an_error_the_other_ends_and_names_it(event, code, fails):
  with Run(2, f"{event}={fails}@5") as run:
    codes = run.codes()
  said = run.said()
  assert codes == [code if index == fails else 75 for index in range(2)], said
  assert "of this process alone" in said[fails] and f"error: process {fails}" not in said[fails]
  assert re.search(rf"^error: process {fails} \(\S+\) ended with an error", said[1 - fails], re.MULTILINE)


@pytest.mark.parametrize("later", [0, 1])
def test_an_error_that_all_processes_meet_is_the_error_of_each(later):
  with Run(2, f"mistakes={later}@5") as run:
    assert run.codes() == [2, 2], run.said()
  assert all("error: of every process" in said for said in run.said())


def test_a_stranger_without_the_token_is_turned_away():
  """It holds the port of process 0 while that waits for the others."""

  class Store:
    def key_value_set(self, key, value):
      self.port, self.token, _ = value.split()
      threading.Thread(target=self.connect, daemon=True).start()

    def connect(self):
      for hello in (b"\xff\x00 1 stranger\n", b"GET / HTTP/1.1\r\n", f"{self.token} 1 friend\n".encode()):
        connection = socket.create_connection(("127.0.0.1", int(self.port)))
        connection.sendall(hello)
        answers.append(connection)

  answers = []
  peers = watch._accept(Store(), "127.0.0.1", 2)
  assert {index: peer.host for index, peer in peers.items()} == {1: "friend"}
  assert answers[0].recv(1) == b""
