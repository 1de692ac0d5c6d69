"""How `launch.serve` holds under load, with a run of scenes, whose pictures can be graded.

  python -m benchmarks.serving --workdir=runs/scenes --out=serving.md

Three things, one after another, of one server in a process of its own. One client asks for held-out captions one by
one; many clients ask at once, each for another caption as soon as it has its picture, and a client that is told to come
back does; then requests of all kinds that cannot be right. Asked is what the page asks, and times are those at which
its events come: the first row of tokens, the first chunk, the picture. Each picture is graded by what its own client
asked for, so a picture that went to another would be seen.
"""

import base64
import contextlib
import http.client
import io
import json
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from absl import app, flags
from PIL import Image

from benchmarks.served import JSON, Server, served, test_split
from omniimage import streams
from omniimage.data.scenes.captions import parse
from omniimage.data.scenes.grader import grade, score
from omniimage.data.scenes.world import Scene
from omniimage.data.tasks import text_of
from omniimage.streams import Stream

WORKDIR = flags.DEFINE_string("workdir", None, "a run of scenes that draws from words", required=True)
CLIENTS = flags.DEFINE_integer("clients", 64, "at once", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 120, "that they ask for", lower_bound=1)
ALONE = flags.DEFINE_float("alone", 60, "seconds that one client asks for, before them", lower_bound=1)
MALFORMED = flags.DEFINE_integer("malformed", 200, "requests that cannot be right", lower_bound=0)
OUT = flags.DEFINE_string("out", None, "write the table here, as Markdown")

Asked = tuple[str, Scene]
MOMENTS = {"tokens": "first tokens", "chunk": "first chunk", "image": "picture"}  # of an answer, by the event


@dataclass
class Tally:
  """What came of the requests of some clients. Times are seconds from when a request was sent."""

  moments: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in MOMENTS})
  objects: int = 0
  bound: int = 0
  whole: int = 0
  put_off: int = 0
  lost: Counter = field(default_factory=Counter)
  seconds: float = 0.0
  lock: threading.Lock = field(default_factory=threading.Lock)

  @property
  def pictures(self) -> int:
    return len(self.moments["image"])


class PutOff(Exception):
  """The queue is full; `seconds` until one should come back."""

  def __init__(self, seconds: float):
    self.seconds = seconds


def main(_):
  captions = held_out(WORKDIR.value)
  with served(WORKDIR.value) as server:
    draw(server, next(captions), 0, Tally())  # what a first request alone compiles or loads
    alone = load(server, captions, 1, ALONE.value)
    many = load(server, captions, CLIENTS.value, SECONDS.value)
    before = server.memory()
    statuses = Counter(malformed(server, MALFORMED.value))
    after = server.memory()
    text = table(alone, many, CLIENTS.value)
    told = ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items()))
    lines = server.log.read_text()
    text += (
      f"\n\nMalformed requests: {told or 'none'}; tracebacks in the server's log: {lines.count('Traceback')}; "
      f"its memory {before:.0f} MiB before them, {after:.0f} after."
    )
    draw(server, next(captions), 0, Tally())  # it still lives
  print(text)
  if OUT.value:
    Path(OUT.value).write_text(f"{text}\n")


def held_out(workdir: str) -> Iterator[Asked]:
  """Captions of the test split and what they ask for, again and again."""
  settings, source = test_split(workdir)
  number = 0
  while True:
    task = source.task(number % len(source))
    if task is source.tasks[0]:
      turns = source.record(number % len(source), streams.generator(Stream.CAPTIONS, 0, number))
      caption = text_of(task.prompt(turns))
      yield caption, parse(caption, settings.data.source.grid)
    number += 1


def load(server: Server, captions: Iterator[Asked], clients: int, seconds: float) -> Tally:
  """What comes of so many clients that ask for so long; what has been asked for by then is waited for."""
  tally, stop = Tally(), time.monotonic() + seconds

  def client(number: int):
    seed = 1000 * number
    while time.monotonic() < stop:
      with tally.lock:
        asked = next(captions)
      seed += 1
      try:
        draw(server, asked, seed, tally)
      except PutOff as full:
        with tally.lock:
          tally.put_off += 1
        time.sleep(min(full.seconds, max(0, stop - time.monotonic())))
      except Exception as error:
        with tally.lock:
          tally.lost[f"{type(error).__name__}: {error}"[:80]] += 1

  begun = time.monotonic()
  threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  tally.seconds = time.monotonic() - begun
  return tally


def draw(server: Server, asked: Asked, seed: int, tally: Tally):
  """Asks as the page does and grades what comes. Raises PutOff where the queue is full, RuntimeError for other
  failures."""
  name = json.loads(server.whole("POST", "/api/conversations", b"")[1])["name"]
  caption, scene = asked
  body = {"messages": [{"role": "user", "content": [{"type": "text", "text": caption}]}], "seed": seed}
  begun = time.monotonic()
  response, connection = server.ask("POST", f"/api/conversations/{name}/answer", json.dumps(body).encode())
  moments, picture = {}, None
  with contextlib.closing(connection):
    if response.status == 429:
      raise PutOff(float(response.headers["retry-after"]))
    if response.status != 200:
      raise RuntimeError(f"{response.status} {response.read()[:200]!r}")
    for kind, data in events(response):
      if "error" in data:
        raise RuntimeError(data["error"]["message"])
      if kind in MOMENTS:
        moments.setdefault(kind, time.monotonic() - begun)
      picture = data.get("picture", picture)
  if picture is None:
    raise RuntimeError("the answer ended without a picture")
  content = server.whole("GET", f"/api/conversations/{name}/pictures/{picture}")[1]
  server.whole("DELETE", f"/api/conversations/{name}")
  found = score(scene, grade(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")), scene.grid))
  with tally.lock:
    for kind, seconds in moments.items():
      tally.moments[kind].append(seconds)
    tally.objects += len(found.bound)
    tally.bound += sum(found.bound)
    tally.whole += found.exact


def events(response) -> Iterator[tuple[str, dict]]:
  """(kind, data) of server-sent events, as they come."""
  kind, data = "", None
  for line in response:
    words = line.decode().rstrip("\r\n")
    if words.startswith("event: "):
      kind = words.removeprefix("event: ")
    elif words.startswith("data: "):
      data = json.loads(words.removeprefix("data: "))
    elif not words and data is not None:
      yield kind, data
      kind, data = "", None


# -------------------------------------------------------------------------------------------------------- malformed


def malformed(server: Server, count: int) -> Iterator[int]:
  """The statuses of so many requests of all kinds that cannot be right."""
  rng = np.random.default_rng(0)
  for number in range(count):
    method, path, body, headers = KINDS[number % len(KINDS)](rng)
    try:
      yield server.whole(method, path, body, headers)[0]
    except (ConnectionError, http.client.HTTPException):
      yield 0  # closed in the middle of what was too large: no answer was read


def _drawing(**fields):
  return "POST", "/v1/images/generations", json.dumps({"prompt": "a red star", **fields}).encode(), JSON


def _answer(**fields):
  return "POST", f"/api/conversations/{'0' * 32}/answer", json.dumps(fields).encode(), JSON


def _chat(content):
  return "POST", "/v1/chat/completions", json.dumps({"messages": [{"role": "user", "content": content}]}).encode(), JSON


def _picture(content: bytes):
  return "POST", f"/api/conversations/{'0' * 32}/pictures", content, {"content-type": "image/png"}


def _bomb(side: int) -> bytes:
  """A PNG that says it has side × side pixels, and holds next to nothing."""
  header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
  chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b"")]
  parts = [struct.pack(">I", len(own)) + kind + own + struct.pack(">I", zlib.crc32(kind + own)) for kind, own in chunks]
  return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _shown(url: str):
  return _chat([{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what is it?"}])


KINDS = (
  lambda rng: ("POST", "/v1/images/generations", rng.bytes(int(rng.integers(1, 4096))), JSON),
  lambda rng: ("POST", "/v1/images/generations", b"[" * int(rng.integers(1, 100_000)), JSON),
  lambda rng: ("POST", "/v1/images/generations", b"[1, 2]", JSON),
  lambda rng: _drawing(n=int(rng.integers(100, 2**40))),
  lambda rng: _drawing(n=-1),
  lambda rng: _drawing(prompt="star " * int(rng.integers(20_000, 40_000))),
  lambda rng: _drawing(prompt=""),
  lambda rng: _drawing(prompt="<image><eos>\0" * int(rng.integers(500, 5000))),
  lambda rng: _drawing(prompt=int(rng.integers(9))),
  lambda rng: _drawing(size=f"{rng.integers(2000, 9999)}x7"),
  lambda rng: _drawing(guidance=float(rng.uniform(-9, -1))),
  lambda rng: _drawing(seed="x"),
  lambda rng: _drawing(sede=1),
  lambda rng: _chat([]),
  lambda rng: _shown("http://example.com/cat.png"),
  lambda rng: _shown("file:///etc/passwd"),
  lambda rng: _shown("data:image/png;base64," + base64.b64encode(rng.bytes(999)).decode()),
  lambda rng: _shown("data:image/png;base64," + base64.b64encode(_bomb(int(rng.integers(20_000, 60_000)))).decode()),
  lambda rng: _answer(messages=[]),
  lambda rng: _answer(messages=[{"role": "user", "content": [{"type": "picture", "name": "../../config.json"}]}]),
  lambda rng: _picture(rng.bytes(int(rng.integers(1, 2**20)))),
  lambda rng: _picture(_bomb(int(rng.integers(20_000, 60_000)))),
  lambda rng: ("POST", "/v1/images/edits", rng.bytes(2000), {"content-type": "multipart/form-data; boundary=b"}),
  lambda rng: ("POST", "/v1/images/generations", b"", {**JSON, "content-length": str(100 * 2**20)}),  # and sends none
  lambda rng: ("GET", f"/{rng.integers(2**40)}", None, {}),
  lambda rng: ("GET", "/page/../../config.json", None, {}),
  lambda rng: ("DELETE", "/v1/images/generations", None, {}),
)


# ------------------------------------------------------------------------------------------------------------ table


def table(alone: Tally, many: Tally, clients: int) -> str:
  columns = {"one client": alone, f"{clients} clients": many}
  rows = [
    ("pictures", [f"{own.pictures} in {own.seconds:.0f} s" for own in columns.values()]),
    ("pictures a second", [f"{own.pictures / own.seconds:.2f}" for own in columns.values()]),
    ("lost", [str(own.lost.total()) for own in columns.values()]),
    ("told to come back", [str(own.put_off) for own in columns.values()]),
    ("objects as asked", [f"{own.bound} of {own.objects}" for own in columns.values()]),
    ("pictures wholly as asked", [f"{own.whole} of {own.pictures}" for own in columns.values()]),
  ]
  for kind, title in MOMENTS.items():
    shown = [f"{np.percentile(own.moments[kind], [50, 99]).round(2).tolist()}" for own in columns.values()]
    rows.append((f"{title}, s: [p50, p99]", shown))
  lines = ["| | " + " | ".join(columns) + " |", "| --- " * (len(columns) + 1) + "|"]
  lines += [f"| {title} | {' | '.join(shown)} |" for title, shown in rows]
  faster = many.pictures / many.seconds / (alone.pictures / alone.seconds)
  lost = "".join(f"\n- {count} × {why}" for why, count in (alone.lost + many.lost).items())
  return "\n".join(lines) + f"\n\n{faster:.2f} times as many pictures a second.{lost}"


if __name__ == "__main__":
  app.run(main)
