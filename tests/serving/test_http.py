"""What every request meets: health, metrics, the token, limits of size and time; what stops when the client leaves."""

import contextlib
import http.client
import json
import re
import socket

import pytest

from omniimage.serving import app
from omniimage.serving.limits import Limits
from tests.serving.served import FakeGenerator, fake_studio, left, serving, until

DRAW = "/v1/images/generations"
JSON = "content-type: application/json"
STAR = {"prompt": "a red star", "seed": 5}


@pytest.fixture
def serve(tmp_path):
  """Opens a server over a fake model; all are closed in the end."""
  with contextlib.ExitStack() as stack:
    yield lambda generator=None, answer="image", **options: stack.enter_context(
      serving(fake_studio(generator or FakeGenerator(), answer, options.pop("rows", 4)), tmp_path / "kept", **options)
    )


def test_health_tells_whether_it_is_compiled_and_metrics_what_was_done(serve):
  served = serve()
  assert served.ask("/health")[::2] == (
    200, {"status": "ok", "compiled": 0, "to_compile": 0, "waiting": 0, "works": 0}
  )  # fmt: skip
  served.engine.to_compile = 2
  assert served.ask("/health")[0] == 503
  assert served.ask(DRAW, STAR)[0] == 200 and served.ask("/no/such")[0] == 404
  status, headers, text = served.ask("/metrics")
  lines = text.decode().splitlines()
  assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
  for line in (
    'omniimage_answers_total{outcome="whole"} 1', "omniimage_images_total 1", "omniimage_image_seconds_count 1",
    'omniimage_requests_total{route="generations",status="200"} 1', "omniimage_waiting 0", "omniimage_rows_sum 1",
    'omniimage_requests_total{route="none",status="404"} 1', 'omniimage_requests_total{route="health",status="503"} 1',
  ):  # fmt: skip
    assert line in lines, line
  sample = re.compile(r'omniimage_\w+(\{(\w+="[^"]*",?)*\})? [\d.e+-]+')
  assert all(line.startswith("# TYPE ") or sample.fullmatch(line) for line in lines), text


def test_the_page_and_its_files_are_there_and_load_nothing_from_elsewhere(serve):
  served = serve()
  status, headers, index = served.ask("/")
  assert status == 200 and headers["content-type"] == "text/html; charset=utf-8"
  assert "default-src 'self'" in headers["content-security-policy"] and headers["x-content-type-options"] == "nosniff"
  named = set(re.findall(r'"/page/([\w.]+)"', index.decode()))
  for name, kind in app.PAGE.items():
    status, headers, content = served.ask(f"/page/{name}")
    assert (status, headers["content-type"]) == (200, kind), name
    assert not re.search(rb"(?<!xmlns=\")https?://|//[\w-]+\.\w+/", content), name
    named |= set(re.findall(r'from "/page/([\w.]+)"', content.decode()))
  assert named == set(app.PAGE) - {"index.html"}


@pytest.mark.parametrize("path", [
  "/page/../app.py", "/page/%2e%2e/app.py", "/page/..%2fapp.py", "/etc/passwd", "/page/app.py", "//etc/passwd",
  "/api/conversations/..%2f..%2fconfig.json", f"/api/conversations/{'0' * 32}/pictures/..%2f..%2f..%2fconfig.json",
  f"/api/conversations/{'0' * 32}", "/v1/models/other",
])  # fmt: skip
def test_nothing_else_can_be_read(serve, path):
  status, _, reply = serve().ask(path)
  assert status == 404 and set(reply["error"]) == {"message", "type", "param", "code"}


def test_another_method_is_refused(serve):
  status, headers, reply = serve().ask(DRAW)
  assert status == 405 and "POST" in headers["allow"] and reply["error"]["code"] == 405


def test_a_token_is_asked_for_of_all_but_the_page(serve):
  served = serve(token="correct horse".replace(" ", "-"))
  for path in ("/", "/page/app.js", "/health"):
    assert served.ask(path)[0] in (200, 503)
  for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic correct-horse"}):
    status, own, reply = served.ask(DRAW, STAR, headers=headers)
    assert (status, own["www-authenticate"], reply["error"]["type"]) == (401, "Bearer", "authentication_error")
  assert served.ask("/metrics")[0] == served.ask("/api/model")[0] == 401
  assert served.ask(DRAW, STAR, headers={"authorization": "Bearer correct-horse"})[0] == 200


def test_pages_of_other_servers_cannot_use_this_one(serve):
  served = serve(hosts=("127.0.0.1", "localhost"))
  assert served.ask(DRAW, STAR, headers={"host": "evil.example"})[0] == 421, "a name that was bound to this machine"
  assert served.ask(DRAW, STAR, headers={"origin": "http://evil.example"})[0] == 403
  assert served.ask(DRAW, STAR, headers={"origin": f"http://127.0.0.1:{served.port}"})[0] == 200
  form = json.dumps(STAR).encode(), "POST", {"content-type": "text/plain"}
  assert served.ask(DRAW, *form)[0] == 415, "what a form sends without being asked whether it may"


def test_a_body_that_is_too_long_is_refused_in_words_and_costs_no_memory(serve):
  served = serve(limits=Limits(body=2**16))
  status, _, reply = served.ask(DRAW, b" " * 2**18, headers={"content-type": "application/json"})
  assert status == 413 and "at most 65,536 bytes" in reply["error"]["message"]
  connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)  # of a length that nobody says
  connection.request("POST", DRAW, iter([b" " * 2**14] * 16), {"content-type": "application/json"}, encode_chunked=True)
  assert connection.getresponse().status == 413
  connection.close()
  assert served.ask(DRAW, STAR)[0] == 200


def test_who_sends_slowly_is_told_so_and_others_are_served(serve):
  served = serve(limits=Limits(seconds=0.5))
  with socket.create_connection(("127.0.0.1", served.port)) as slow:
    slow.sendall(f"POST {DRAW} HTTP/1.1\r\nhost: a\r\n{JSON}\r\ncontent-length: 99\r\n\r\n{{".encode())
    assert served.ask(DRAW, STAR)[0] == 200
    slow.settimeout(20)
    assert slow.recv(9999).startswith(b"HTTP/1.1 408 ")


def test_who_reads_slowly_is_left_and_the_work_stops(serve):
  from tests.chat.fake_chat import text

  generator = FakeGenerator(says=text(*(["x" * 2**20] * 60)))
  served = serve(generator, "free", limits=Limits(seconds=0.5, unread=2))
  ask = json.dumps({"messages": [{"role": "user", "content": "a"}], "stream": True})
  with socket.create_connection(("127.0.0.1", served.port)) as slow:
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n{JSON}\r\ncontent-length: {len(ask)}"
    slow.sendall(f"{head}\r\n\r\n{ask}".encode())
    assert until(lambda: served.engine.works == 1) and until(lambda: served.engine.works == 0)
  assert generator.steps < 60
  assert until(lambda: 'answers_total{outcome="left"} 1' in served.engine.metrics.text())


@pytest.mark.parametrize("streams", [False, True])
def test_when_the_client_leaves_the_work_stops(serve, streams):
  generator = FakeGenerator()
  generator.gate.clear()
  served = serve(generator)
  connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
  connection.request("POST", DRAW, json.dumps({**STAR, "stream": streams}), {"content-type": "application/json"})
  assert until(lambda: served.engine.works == 1)
  connection.sock.close()
  connection.close()
  assert until(lambda: left(served.engine))
  generator.gate.set()
  assert until(lambda: served.engine.works == 0) and generator.steps <= 1
  assert until(lambda: 'answers_total{outcome="left"} 1' in served.engine.metrics.text())
  assert served.ask(DRAW, STAR)[0] == 200


def test_a_full_queue_says_when_to_come_back(serve):
  generator = FakeGenerator()
  generator.gate.clear()
  served = serve(generator, limits=Limits(waiting=1))
  status, headers, reply = served.ask(DRAW, {**STAR, "n": 2})
  generator.gate.set()
  assert status == 429 and int(headers["retry-after"]) >= 1 and reply["error"]["type"] == "rate_limit_error"
  assert served.ask(DRAW, STAR)[0] == 200


def test_an_answer_that_fails_is_500_without_a_word_of_this_machine(serve):
  served = serve(FakeGenerator(says=[RuntimeError("/home/someone/secret")]), "free")
  ask = {"messages": [{"role": "user", "content": "a"}]}
  status, _, reply = served.ask("/v1/chat/completions", ask)
  assert status == 500 and "secret" not in json.dumps(reply) and reply["error"]["type"] == "server_error"
  status, _, content = served.ask("/v1/chat/completions", {**ask, "stream": True})
  assert status == 200 and b'"code": 500' in content and b"secret" not in content


def test_who_listens_is_told_that_the_server_stops(serve):
  generator = FakeGenerator()
  generator.gate.clear()
  served = serve(generator)
  connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
  connection.request("POST", DRAW, json.dumps(STAR), {"content-type": "application/json"})
  assert until(lambda: served.engine.works == 1)
  served.engine.close(0.1)
  assert connection.getresponse().status == 503 and served.ask(DRAW, STAR)[0] == 503
  generator.gate.set()
  connection.close()
