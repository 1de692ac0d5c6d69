"""Processes join where there are several, and only there."""

import http.server
import os
import socket
import subprocess
import sys
import threading

import jax
import pytest

from launch import processes
from omniimage.errors import UserError

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
  monkeypatch.setattr(jax.distributed, "initialize", lambda: calls.append(None))
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
  def fail():
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
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
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
    "JAX_COORDINATOR_PORT": str(port),
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
