"""A bucket on this machine: as much of Cloud Storage's JSON API as gcsfs, Orbax and TensorStore use, over HTTP.

Objects are in memory, whole or not there, with a generation each, as the service keeps them. It can be made to answer
badly: a share of the requests with 429 or 503, half of these after it has done what was asked, and all of them late.

  with Storage() as storage:   # gs://bucket; libraries find it by the environment, also those of processes started here
    storage.objects["run/config.json"]
"""

import atexit
import base64
import contextlib
import functools
import hashlib
import itertools
import json
import os
import random
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

OBJECTS = r"/(?:download/)?storage/v1/b/(?P<bucket>[^/]+)/o"
OBJECT = rf"{OBJECTS}/(?P<name>[^/]+)"


class Storage:
  """One bucket.

  Attributes:
    objects: content by name. What is put here is an object of another generation.
    failing: share of the requests that are answered with 429 or 503, where no door of its own says another.
    losing: of so many of the next writes the answer is a 503, although they were done.
  """

  def __init__(self, bucket: str = "bucket"):
    self.bucket, self.failing, self.losing = bucket, 0.0, 0
    self.lock, self._stored, self._generations = threading.RLock(), {}, itertools.count(1)
    self.uploads: dict[str, tuple[str, bytearray]] = {}
    self.objects = _Objects(self)

  def __enter__(self) -> "Storage":
    """Opens a door, and names it in the environment."""
    self._open = contextlib.ExitStack()
    environment = self._open.enter_context(self.door())
    before = {name: os.environ.get(name) for name in environment}
    os.environ |= environment

    def put_back():
      for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})

    self._open.callback(put_back)
    return self

  def __exit__(self, *_):
    self._open.close()

  @contextlib.contextmanager
  def door(self, failing: float | None = None, delay: float = 0.0, seed: int = 0) -> Iterator[dict[str, str]]:
    """The environment that leads to the bucket by a server of its own.

    Args:
      failing: share of the requests that are answered with 429 or 503, half of them though they were done, but for
        writes on a condition: a client that tries one of these again meets what it has written itself, and TensorStore
        then ends a save with an error.
      delay: seconds before any answer, at most.
    """
    server = _Server(self, failing, delay, seed)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
      address = f"http://127.0.0.1:{server.server_port}"
      yield {
        "STORAGE_EMULATOR_HOST": address, "TENSORSTORE_GCS_HTTP_URL": address, "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none"
      }  # fmt: skip
    finally:
      server.shutdown()
      server.server_close()

  def names(self, prefix: str = "") -> list[str]:
    with self.lock:
      return sorted(name for name in self._stored if name.startswith(prefix))

  def found(self, name: str) -> tuple[bytes, int, float] | None:
    """Content, generation, and when it was written."""
    return self._stored.get(name)

  def put(self, name: str, content: bytes, match: str | None = None) -> bool:
    """Whether it is there now: not, where another generation was expected, "0" being none."""
    with self.lock:
      if match is not None and match != str(self._stored.get(name, (b"", 0))[1]):
        return False
      self._stored[name] = bytes(content), next(self._generations), time.time()
      return True

  def remove(self, name: str, match: str | None = None) -> int:
    with self.lock:
      if name not in self._stored:
        return 404
      if match is not None and match != str(self._stored[name][1]):
        return 412
      del self._stored[name]
      return 204

  def described(self, name: str) -> dict:
    content, generation, at = self._stored[name]
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03d}Z"
    return {
      "kind": "storage#object", "name": name, "bucket": self.bucket, "generation": str(generation),
      "metageneration": "1", "size": str(len(content)), "timeCreated": stamp, "updated": stamp,
      "contentType": "application/octet-stream", "storageClass": "STANDARD",
      "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(), "etag": str(generation),
    }  # fmt: skip


@functools.cache
def shared() -> Storage:
  """One for all of this process and those that it starts; what they read it for stays apart by folders."""
  opened = Storage().__enter__()
  atexit.register(opened.__exit__)
  return opened


class _Objects:
  """The objects as a mapping."""

  def __init__(self, storage: Storage):
    self._storage = storage

  def __getitem__(self, name: str) -> bytes:
    return self._storage.found(name)[0]

  def __setitem__(self, name: str, content: bytes):
    self._storage.put(name, content)

  def __delitem__(self, name: str):
    self._storage.remove(name)

  def __contains__(self, name: str) -> bool:
    return self._storage.found(name) is not None

  def __iter__(self) -> Iterator[str]:
    return iter(self._storage.names())


class _Server(ThreadingHTTPServer):
  daemon_threads, request_queue_size = True, 128

  def __init__(self, storage: Storage, failing: float | None, delay: float, seed: int):
    super().__init__(("127.0.0.1", 0), _Handler)
    self.storage, self._failing, self._delay, self._dice = storage, failing, delay, random.Random(seed)

  def fault(self, writes: bool, on_condition: bool) -> tuple[int, bool] | None:
    """The answer that a request gets in place of its own, and whether what it asked for is done all the same."""
    with self.storage.lock:
      if writes and self.storage.losing:
        self.storage.losing -= 1
        return 503, True
      wait, chance = self._dice.uniform(0, self._delay), self._dice.random()
      code, done = self._dice.choice((429, 503)), self._dice.random() < 0.5 and not on_condition
    time.sleep(wait)
    failing = self.storage.failing if self._failing is None else self._failing
    return (code, done) if chance < failing else None

  def handle_error(self, *_):
    """A client that was killed is no error."""


class _Handler(BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"
  disable_nagle_algorithm = True

  @property
  def storage(self) -> Storage:
    return self.server.storage

  def log_message(self, *_):
    pass

  def do_GET(self):
    self._answer(self._get)

  def do_POST(self):
    self._answer(self._post)

  def do_PUT(self):
    self._answer(self._post)

  def do_DELETE(self):
    self._answer(self._delete)

  def _answer(self, do):
    self.body = self._read()
    url = urlsplit(self.path)
    self.query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
    self.path_alone = url.path
    fault = self.server.fault(writes=self.command == "POST", on_condition="ifGenerationMatch" in self.query)
    if fault and not fault[1]:
      self._say(fault[0], {"error": {"code": fault[0], "message": "try again"}})
      return
    with self.storage.lock:
      code, content, headers = do()
    if fault:
      code, content, headers = fault[0], {"error": {"code": fault[0], "message": "try again"}}, {}
    self._say(code, content, headers)

  def _read(self) -> bytes:
    if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
      parts = []
      while size := int(self.rfile.readline().split(b";")[0], 16):
        parts.append(self.rfile.read(size))
        self.rfile.readline()
      self.rfile.readline()
      return b"".join(parts)
    return self.rfile.read(int(self.headers.get("Content-Length") or 0))

  def _say(self, code: int, content: dict | bytes | None = None, headers: dict[str, str] | None = None):
    body = json.dumps(content).encode() if isinstance(content, dict) else content or b""
    self.send_response(code)
    for name, value in (headers or {}).items():
      self.send_header(name, value)
    if isinstance(content, dict):
      self.send_header("Content-Type", "application/json; charset=UTF-8")
    if code != 204:
      self.send_header("Content-Length", str(len(body)))
    self.end_headers()
    if code != 204:
      self.wfile.write(body)

  def _get(self):
    if found := re.fullmatch(OBJECT, self.path_alone):
      return self._object(unquote(found["name"]))
    if re.fullmatch(OBJECTS, self.path_alone):
      return self._list() if self._knows() else _missing()
    return (200, {"kind": "storage#bucket", "name": self.storage.bucket}, {}) if self._knows() else _missing()

  def _knows(self) -> bool:
    return self.path_alone.split("/b/")[1].split("/")[0] == self.storage.bucket

  def _object(self, name: str):
    found = self.storage.found(name) if self._knows() else None
    if found is None:
      return _missing()
    content, generation, _ = found
    if self.query.get("ifGenerationNotMatch") == str(generation):
      return 304, b"", {}
    if self.query.get("ifGenerationMatch", str(generation)) != str(generation):
      return _failed_condition()
    if self.query.get("alt") != "media":
      return 200, self.storage.described(name), {}
    headers = {"x-goog-generation": str(generation), "x-goog-metageneration": "1"}
    headers |= {"Content-Type": "application/octet-stream", "x-goog-stored-content-length": str(len(content))}
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
    if not asked:
      return 200, content, headers
    first, last = asked.groups()
    first, last = (max(len(content) - int(last), 0), "") if not first else (int(first), last)
    stop = min(int(last) + 1 if last else len(content), len(content))
    if first >= len(content):
      return 416, {"error": {"code": 416, "message": "range not satisfiable"}}, {}
    return 206, content[first:stop], {**headers, "Content-Range": f"bytes {first}-{stop - 1}/{len(content)}"}

  def _list(self):
    prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter")
    start, end = self.query.get("startOffset", ""), self.query.get("endOffset")
    entries = {}
    for name in self.storage.names(prefix):
      if name < start or (end and name >= end):
        continue
      rest = name[len(prefix) :]
      folder = prefix + rest.split(delimiter)[0] + delimiter if delimiter and delimiter in rest else None
      entries.setdefault(folder or name, folder is not None)
    after, most = self.query.get("pageToken", ""), int(self.query.get("maxResults") or 1000)
    left = [entry for entry in entries if entry > after]
    page = left[:most]
    found = [self.storage.described(entry) for entry in page if not entries[entry]]
    answer = {"kind": "storage#objects", "items": found}
    if folders := [entry for entry in page if entries[entry]]:
      answer["prefixes"] = folders
    if len(left) > most:
      answer["nextPageToken"] = page[-1]
    return 200, answer, {}

  def _post(self):
    copied = re.fullmatch(rf"{OBJECT}/(rewriteTo/b/[^/]+|moveTo|copyTo/b/[^/]+)/o/(?P<to>[^/]+)", self.path_alone)
    if copied:
      return self._copy(unquote(copied["name"]), unquote(copied["to"]), copied[3])
    if session := self.query.get("upload_id"):
      return self._chunk(session)
    if not re.fullmatch(rf"/upload{OBJECTS}", self.path_alone):
      return 400, {"error": {"code": 400, "message": f"unknown: {self.path}"}}, {}
    if not self._knows():
      return _missing()
    match self.query.get("uploadType"):
      case "resumable":
        name = self.query.get("name") or json.loads(self.body)["name"]
        session = f"{len(self.storage.uploads)}-{time.time_ns()}"
        self.storage.uploads[session] = name, bytearray()
        return 200, b"", {"Location": f"http://{self.headers['Host']}{self.path_alone}?upload_id={session}"}
      case "multipart":
        boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
        _, described, content, _ = self.body.split(b"--" + boundary)
        name = json.loads(re.split(rb"\r?\n\r?\n", described, maxsplit=1)[1])["name"]
        content = re.split(rb"\r?\n\r?\n", content, maxsplit=1)[1]
        return self._stored(name, content[: -2 if content.endswith(b"\r\n") else -1])
    return self._stored(self.query["name"], self.body)

  def _stored(self, name: str, content: bytes):
    if not self.storage.put(name, content, self.query.get("ifGenerationMatch")):
      return _failed_condition()
    return 200, self.storage.described(name), {}

  def _chunk(self, session: str):
    name, content = self.storage.uploads[session]
    first, size = re.fullmatch(
      r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", self.headers.get("Content-Range", f"bytes 0-0/{len(self.body)}")
    ).groups()
    if first is not None and self.body:
      content[int(first) :] = self.body
    if size != "*" and len(content) >= int(size):
      return self._stored(name, bytes(content))
    return 308, b"", {"Range": f"bytes=0-{len(content) - 1}"} if content else {}

  def _copy(self, name: str, to: str, how: str):
    found = self.storage.found(name) if self._knows() else None
    if found is None:
      return _missing()
    self.storage.put(to, found[0])
    if how == "moveTo":
      self.storage.remove(name)
      return 200, self.storage.described(to), {}
    described = self.storage.described(to)
    return 200, {"kind": "storage#rewriteResponse", "done": True, "resource": described} | {"size": "0"}, {}

  def _delete(self):
    if not (found := re.fullmatch(OBJECT, self.path_alone)) or not self._knows():
      return _missing()
    code = self.storage.remove(unquote(found["name"]), self.query.get("ifGenerationMatch"))
    return {404: _missing(), 412: _failed_condition()}.get(code, (204, b"", {}))


def _missing():
  return 404, {"error": {"code": 404, "message": "not found"}}, {}


def _failed_condition():
  return 412, {"error": {"code": 412, "message": "conditionNotMet"}}, {}
