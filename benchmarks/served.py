"""A server of a run in a process of its own, and what the run has not seen."""

import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omniimage.data.sources import open_source
from omniimage.data.sources.source import Source
from omniimage.settings import Settings
from omniimage.systems import open_system
from omniimage.workdir import Workdir

JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Server:
  port: int
  process: subprocess.Popen
  log: Path

  def ask(self, method: str, path: str, body: bytes | None = None, headers: dict | None = None):
    """The response, to be read, and what closes it."""
    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
    connection.request(method, path, body, headers or JSON)
    return connection.getresponse(), connection

  def whole(self, method: str, path: str, body: bytes | None = None, headers: dict | None = None) -> tuple[int, bytes]:
    response, connection = self.ask(method, path, body, headers)
    with contextlib.closing(connection):
      return response.status, response.read()

  def memory(self) -> float:
    """Of the process, in MiB."""
    status = Path(f"/proc/{self.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@contextlib.contextmanager
def served(workdir: str) -> Iterator[Server]:
  log = Path(workdir) / "serving.log"
  command = [sys.executable, "-m", "launch.serve", f"--workdir={workdir}", "--port=0"]
  with log.open("w") as errors:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
  try:
    said = process.stdout.readline()
    if not said.startswith("http://"):
      raise RuntimeError(f"the server did not start; {log} says why")
    server = Server(int(said.split(":")[2]), process, log)
    while not json.loads(server.whole("GET", "/api/model")[1])["ready"]:
      time.sleep(1)
    yield server
  finally:
    process.terminate()
    process.wait(60)


def test_split(workdir: str) -> tuple[Settings, Source]:
  """Of a run: its settings, and the source of its held-out records."""
  folder = Workdir(workdir)
  settings = folder.read_settings()
  tokenizer = folder.load_vocabulary(settings)
  vocabulary = open_system(settings, tokenizer.size).vocabulary
  return settings, open_source(settings.data, "test", settings.buckets, tokenizer, vocabulary)
