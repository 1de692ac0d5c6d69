"""A server on a free port of this machine, over a model or over what answers by a script."""

import contextlib
import http.client
import json
import threading
import time

import numpy as np

from omniimage.chat.learnt import Learnt
from omniimage.serving.app import App
from omniimage.serving.engine import Engine
from omniimage.serving.history import History
from omniimage.serving.limits import Limits
from omniimage.serving.listening import bound, server_of
from omniimage.serving.studio import Studio
from tests import small
from tests.chat.fake_chat import image

JSON = {"content-type": "application/json"}


class FakeGenerator:
  """Draws a picture of one shade, that of the seed, and says what it is told to.

  Attributes:
    calls: (seeds, rows, places, changes) of each batch, and (turns, answer) of each session.
    drawn_after: the conversations of each batch.
    gate: what is waited for before each step, if a test closes it.
    steps: that were computed; `began` has how many there were when each session began.
  """

  def __init__(self, says: list = (), **changes):
    self.omni, self.text_tokenizer, self.params = small.omni(small.settings(**changes)), small.text_tokenizer(), None
    self.calls, self.drawn_after, self.says, self.steps, self.gate = [], [], list(says), 0, threading.Event()
    self.gate.set()
    self.began = []

  def draw_together(self, conversations, seeds, rows, places, **changes):
    self.calls.append((tuple(seeds), rows, places, changes))
    self.drawn_after.append(conversations)
    for events in zip(*(image(seed % 64) for seed in seeds)):
      yield self._computed(list(events))

  def session(self, turns, seed, answer, **changes):
    self.calls.append((turns, answer))
    self.began.append(self.steps)
    for event in self.says:
      if isinstance(event, Exception):
        raise event
      yield self._computed(event)

  def preview(self, codes):
    return np.zeros((16, 16, 3), np.float32)

  def _computed(self, item):
    assert self.gate.wait(60), "nobody has opened the gate"
    self.steps += 1
    return item


def fake_studio(generator, answer: str = "image", rows: int = 4, exchanges=None) -> Studio:
  return Studio({"1:1": generator}, Learnt(answer, exchanges), rows)


def compiled(engine: Engine, *rows: int) -> Engine:
  """The same, as if its usual programs were there."""
  engine._programs = {(shape, n) for _, shape, n in engine.studio.usual() if not rows or n in rows}
  return engine


class Served:
  """A server under way."""

  def __init__(self, engine: Engine, port: int):
    self.engine, self.port, self.url = engine, port, f"http://127.0.0.1:{port}"

  def ask(self, path: str, body=None, method: str | None = None, headers: dict | None = None):
    """Status, headers and body of an answer; bodies that are JSON are read, those asked with are written."""
    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
    with contextlib.closing(connection):
      kind = {} if body is None or isinstance(body, bytes) else JSON
      content = body if body is None or isinstance(body, bytes) else json.dumps(body)
      connection.request(method or ("GET" if body is None else "POST"), path, content, {**kind, **(headers or {})})
      response = connection.getresponse()
      content, own = response.read(), {name.lower(): value for name, value in response.getheaders()}
      is_json = own.get("content-type") == "application/json"
      return response.status, own, json.loads(content) if is_json else content


@contextlib.contextmanager
def serving(studio: Studio, folder, limits: Limits | None = None, token: str = "", hosts=(), known: bool = True):
  """`known`: whether the usual programs are taken to be compiled."""
  engine = Engine(studio, limits or Limits())
  if known:
    compiled(engine)
  app, own = App(engine, History(folder, "5f0c"), 7, token, hosts), bound("127.0.0.1", 0)
  server = server_of(app, engine)
  thread = threading.Thread(target=server.run, kwargs={"sockets": [own]}, daemon=True)
  engine.start(compile_first=False)
  thread.start()
  try:
    assert until(lambda: server.started)
    yield Served(engine, own.getsockname()[1])
  finally:
    server.should_exit = True
    thread.join(20)
    engine.close(1)
    own.close()


def until(holds, seconds: float = 30) -> bool:
  """Whether it holds in time."""
  stop = time.monotonic() + seconds
  while not holds() and time.monotonic() < stop:
    time.sleep(0.01)
  return bool(holds())


def left(engine: Engine) -> bool:
  """Whether the engine sees that nobody listens to what it computes."""
  return all(work.left for work in tuple(engine._under_way))


def events_of(content: bytes) -> list[tuple[str, dict]]:
  """(name, data) of server-sent events."""
  found = []
  for block in content.decode().split("\n\n"):
    lines = dict(line.split(": ", 1) for line in block.splitlines())
    if "data" in lines:
      found.append((lines.get("event", ""), lines["data"] if lines["data"] == "[DONE]" else json.loads(lines["data"])))
  return found
