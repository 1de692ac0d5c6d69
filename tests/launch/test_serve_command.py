"""launch.serve with a model of random numbers: from a run's folder to a picture over HTTP; what it refuses to start."""

import base64
import contextlib
import dataclasses
import io
import socket
import threading
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from omniimage.sampling.generate import Generator
from omniimage.serving import listening
from omniimage.serving.app import App
from omniimage.serving.history import History
from omniimage.serving.pictures import to_uint8
from tests import small
from tests.launch.in_process import call
from tests.launch.random_run import random_run
from tests.serving.served import Served, until


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  path = tmp_path_factory.mktemp("runs") / "mine"
  random_run(path, **small.SHALLOW, **{"data.aspect_ratios": ("1:1", "2:1")})
  return path


@pytest.fixture
def started(workdir, capsys):
  """What the command would serve: engine, run, folder of conversations, socket, token; and what it printed."""

  def start(*args: str):
    with mock.patch.object(listening, "serve") as serve:
      call("serve", f"--workdir={workdir}", "--port=0", *args)
    (given,) = [called.args for called in serve.call_args_list]
    given[3].close()
    return given, capsys.readouterr()

  return start


def test_a_run_is_served_and_draws_what_its_generator_draws(started, workdir, tmp_path):
  (engine, run, conversations, own, token), printed = started("--batch=2", "--waiting=3", "--guidance=1.5")
  assert (engine.studio.sizes, engine.studio.rows, engine.limits.waiting) == (("1:1", "2:1"), 2, 3)
  assert engine.studio.settings("2:1").sampling == dataclasses.replace(run.settings.sampling, guidance=1.5)
  assert (run.step, conversations, token, printed.err) == (1, workdir / "conversations", "", "")
  own = listening.bound("127.0.0.1", 0)
  server = listening.server_of(App(engine, History(tmp_path, ""), run.step), engine)
  thread = threading.Thread(target=server.run, kwargs={"sockets": [own]}, daemon=True)
  engine.start(compile_first=False)
  thread.start()
  try:
    assert until(lambda: server.started)
    served = Served(engine, own.getsockname()[1])
    status, _, reply = served.ask("/v1/images/generations", {"prompt": "a red star", "n": 2, "seed": 3})
    wide = served.ask("/v1/images/generations", {"prompt": "a red star", "seed": 3, "size": "2:1"})[2]
  finally:
    server.should_exit = True
    thread.join(20)
    engine.close()
  generator = Generator.from_workdir(workdir)
  expected = generator.draw_after([["a red star"]] * 2, [3, 4], guidance=1.5)
  for item, pixels in zip(reply["data"], to_uint8(np.asarray(expected.images))):
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(item["b64_json"]))))
    assert abs(drawn.astype(int) - pixels).max() <= 1
  assert status == 200 and wide["size"] == "24x8"


def test_without_a_token_it_warns_where_others_reach_it(started, tmp_path):
  token = tmp_path / "token.txt"
  token.write_text("correct-horse\nsecond line\n")
  assert "reached from other machines and there is no --token_file" in started("--host=0.0.0.0")[1].err
  given, printed = started("--host=0.0.0.0", f"--token_file={token}")
  assert given[-1] == "correct-horse" and not printed.err
  assert not started("--host=127.0.0.1")[1].err


@pytest.mark.parametrize("args, problem", [
  (("--port=0",), "give --workdir="),
  (("--workdir=nowhere", "--port=0"), "nowhere is not a run"),
  (("--workdir=nowhere", "a"), "'a' is not a flag"),
  (("--workdir=nowhere", "--token_file=nowhere"), "nowhere cannot be read"),
  (("--workdir=nowhere", "--token_file=short"), "8 or more"),
  (("--workdir=nowhere", "--host=no such host"), "cannot be listened at"),
  (("--workdir=nowhere", "--port=70000"), "--port=70000: must be from 0 to 65,535"),
])  # fmt: skip
def test_what_cannot_be_served_is_one_line(tmp_path, monkeypatch, capsys, args, problem):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "short").write_text("abc\n")
  with pytest.raises(SystemExit) as stopped:
    call("serve", *args)
  printed = capsys.readouterr()
  assert stopped.value.code == 2 and not printed.out
  assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and problem in printed.err


def test_an_address_that_is_taken_is_one_line(capsys):
  with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken, pytest.raises(SystemExit):
    call("serve", "--workdir=nowhere", f"--port={taken.getsockname()[1]}")
  assert "is in use by another program; choose another --port" in capsys.readouterr().err
