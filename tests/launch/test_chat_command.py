"""launch.chat and docs/conversation.md with a model of random numbers: from a run's folder to a session's."""

import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omniimage.chat.folder import CONVERSATIONS
from tests import small
from tests.data.formats.made import read, said
from tests.launch.in_process import call
from tests.launch.random_run import random_run

DOCUMENT = Path(__file__).parents[2] / "docs" / "conversation.md"
TALKS = {**small.SHALLOW, "stages.prior.weights.text": 1.0, "data.source.tasks": ("text_to_image", "caption")}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
  """A folder with runs/mine, which writes and draws, runs/draws, which has learnt pictures alone, and a picture."""
  folder = tmp_path_factory.mktemp("here")
  for name, changes in {"mine": TALKS, "draws": small.SHALLOW}.items():
    random_run(folder / "runs" / name, **changes, **{"data.sequence_length": 96})
  Image.new("RGB", (40, 30), "red").save(folder / "cat.png")
  return folder


@pytest.fixture
def chat(here, monkeypatch, capsys):
  """Runs the command in that folder; its exit code, stdout and stderr."""
  monkeypatch.chdir(here)

  def run(*args: str, typed: bytes = b"") -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed)))
    code = 0
    try:
      call("chat", *args)
    except SystemExit as end:
      code = end.code
    return code, *capsys.readouterr()

  return run


def kept(folder) -> list:
  return [said(row) for row in read(str(folder / CONVERSATIONS), name="conversations")]


def test_a_model_that_has_learnt_no_text_draws_and_a_session_goes_on(chat, here):
  code, out, err = chat("--workdir=runs/draws", "--session=star", "--prompt=a red star", "--seed=3")
  assert (code, out) == (0, "picture: star/001.png\n") and err == f"session: {here}/star\n"
  code, out, _ = chat(
    "--workdir=runs/draws", "--session=star", "--seed=3", typed=b"\nnow larger\n/seed 9\n/quit\nnever\n"
  )
  assert (code, out) == (0, "picture: star/002.png\n")
  assert kept(here / "star") == [
    [("user", ["a red star"]), ("assistant", ["<0>"])],
    [("user", ["now larger"]), ("assistant", ["<0>"])],
  ]
  at_once = chat("--workdir=runs/draws", "--session=at once", "--prompt=a red star", "--prompt=now larger", "--seed=3")
  assert at_once[1] == "picture: at once/001.png\npicture: at once/002.png\n"
  for name in ("001.png", "002.png"):
    first, second = (np.asarray(Image.open(here / folder / name), int) for folder in ("star", "at once"))
    assert abs(first - second).max() <= 1, "a session that was ended draws as one that was not"


def test_a_model_that_writes_is_shown_a_picture(chat, here):
  code, out, _ = chat("--workdir=runs/mine", "--image=cat.png", "--prompt=what is it", "--session=seen")
  assert code == 0 and out
  assert kept(here / "seen")[0][0] == ("user", ["<0>", "what is it"])
  assert (here / "seen" / "001.png").read_bytes() == (here / "cat.png").read_bytes()


@pytest.mark.parametrize("args, typed, problem", [
  ((), b"", "give --workdir="),
  (("--workdir=runs/mine", "a red star"), b"", "put what you say in quotes"),
  (("--workdir=nowhere", "--prompt=a"), b"", "nowhere is not a run"),
  (("--workdir=runs/mine", "--prompt= "), b"", "--prompt is empty"),
  (("--workdir=runs/mine", "--prompt=a", "--image=nowhere.png"), b"", "nowhere.png cannot be read"),
  (("--workdir=runs/mine", "--prompt=a", "--image=runs"), b"", "runs cannot be read: Is a directory"),
  (("--workdir=runs/mine", "--prompt=" + 99 * "star "), b"", "it is too long for this model"),
  (("--workdir=runs/mine", "--image=cat.png"), b"\n", "nothing said with it"),
  (("--workdir=runs/mine",), b"caf\xe9\n", "no text in UTF-8"),
  (("--workdir=runs/mine",), b"/dance\n", "there is no command /dance"),
  (("--workdir=runs/mine", "--prompt=a", "--session=cat.png"), b"", "cat.png cannot be written"),
  (("--workdir=runs/mine", "--prompt=a", "--guidance=200"), b"", "--guidance=200: must be from 0 to 100"),
])  # fmt: skip
def test_what_cannot_be_is_one_line_and_leaves_nothing(chat, here, args, typed, problem):
  code, out, err = chat(*args, typed=typed)
  assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1 and problem in err
  assert not list(here.glob("runs/*/chats/*")) and not (here / "nowhere").exists()


def test_the_examples_of_the_document_run(here, monkeypatch, capsys):
  monkeypatch.chdir(here)
  names: dict = {}
  for example in re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL):
    exec(example, names)
  assert Image.open("larger.png").size == (16, 16) and isinstance(names["told"], str)
  assert names["drawing"].images.shape == (2, 16, 16, 3)
  assert names["redrawn"].images.shape == names["others"].images.shape == (4, 16, 16, 3)
  assert [type(part).__name__ for part in names["answer"]] == ["ImageTurn"]
  assert "(16, 16, 3)" in capsys.readouterr().out
