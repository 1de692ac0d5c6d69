"""All that the page asks, as it asks it: answers strip by strip, pictures, conversations that are kept and exported."""

import base64
import contextlib
import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from omniimage.chat.folder import SessionFolder
from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.serving import app
from omniimage.serving.limits import Limits
from tests import odd_pictures
from tests.chat.fake_chat import image, text
from tests.data.formats.made import read, said
from tests.serving.served import FakeGenerator, events_of, fake_studio, left, serving, until

PAGE = Path(app.__file__).parent / "page"
RED = odd_pictures.encoded(np.full((40, 30, 3), (255, 0, 0), np.uint8), "PNG")
STAR = {"role": "user", "content": [{"type": "text", "text": "a red star"}]}
LARGER = {"role": "user", "content": [{"type": "text", "text": "now larger"}]}


class Browser:
  """A conversation as the page leads it."""

  def __init__(self, served):
    self.served, self.messages = served, []
    self.name = served.ask("/api/conversations", b"")[2]["name"]

  @property
  def path(self) -> str:
    return f"/api/conversations/{self.name}"

  def say(self, *messages, **fields) -> list:
    """The events of the answer to messages behind what was said."""
    asked = {"messages": [*self.messages, *messages], **fields}
    status, headers, content = self.served.ask(f"{self.path}/answer", asked)
    assert status == 200 and headers["content-type"].startswith("text/event-stream"), content
    self.messages = self.kept()
    return events_of(content)

  def kept(self) -> list:
    return self.served.ask(self.path)[2].get("messages", [])

  def picture(self, name: str) -> np.ndarray:
    status, _, content = self.served.ask(f"{self.path}/pictures/{name}")
    assert status == 200
    return np.asarray(Pillow.open(io.BytesIO(content)))


@pytest.fixture
def folder(tmp_path):
  return tmp_path / "kept"


@pytest.fixture
def browse(folder):
  """Opens a conversation on a server over a fake model; all are closed in the end."""
  with contextlib.ExitStack() as stack:

    def open_browser(generator=None, answer="image", exchanges=None, **options) -> Browser:
      studio = fake_studio(generator or FakeGenerator(), answer, exchanges=exchanges)
      return Browser(stack.enter_context(serving(studio, folder, **options)))

    yield open_browser


def strip(data: dict) -> tuple:
  """Top, size of the whole, and the pixels of a strip that an event brings."""
  pixels = np.asarray(Pillow.open(io.BytesIO(base64.b64decode(data["png"]))))
  assert len(pixels) == data["rows"]
  return data["top"], data["height"], data["width"], pixels.shape


def test_it_is_told_what_the_model_is(browse):
  status, _, model = browse().served.ask("/api/model")
  assert status == 200 and model["ready"] and model["sizes"] == [{"name": "1:1", "width": 16, "height": 16}]
  assert set(model["sampling"]) == {*model["ranges"], "solver"} and model["ranges"]["top_p"] == [1e-6, 1]
  assert model["answer"] == "image" and "picture" in model["told"] and model["images"] == Limits().images


def test_a_picture_appears_row_by_row_then_chunk_by_chunk_each_once(browse):
  browser = browse()
  events = browser.say(STAR, seed="8")
  assert [name for name, _ in events] == ["start", "tokens", "tokens", "chunk", "chunk", "image", "done"]
  start, *strips, picture, done = (data for _, data in events)
  assert start["seeds"] == ["8"] and done == {"kept": True}
  assert [strip(data) for data in strips] == [(top, 16, 16, (8, 16, 3)) for top in (0, 8, 0, 8)]
  assert (picture["answer"], picture["seed"]) == (0, "8")
  assert browser.kept() == [
    STAR, {"role": "assistant", "content": [{"type": "picture", "name": picture["picture"]}]}
  ]  # fmt: skip
  assert browser.picture(picture["picture"])[0, 0, 0] == round(1.08 * 127.5)


def test_the_next_answer_goes_on_from_the_codes_that_were_drawn(browse):
  generator = FakeGenerator()
  browser = browse(generator)
  browser.say(STAR, seed=8)
  browser.say(LARGER, seed=9)
  before, last = generator.drawn_after[1][0][:2], generator.drawn_after[1][0][2]
  assert isinstance(before[1], ImageTurn) and before[1].image.tolist() == [[8, 8], [8, 8]] and before[1].is_target
  assert last == TextTurn("now larger", False) and len(browser.messages) == 4


def test_a_conversation_outlives_the_server_and_the_chat_goes_on_with_it(browse, folder):
  browser = browse()
  browser.say(STAR, seed=8)
  generator = FakeGenerator()
  other = browse(generator)
  other.name, other.messages = browser.name, browser.messages
  other.say(LARGER)
  assert generator.drawn_after[0][0][1].image.tolist() == [[8, 8], [8, 8]]
  with contextlib.closing(SessionFolder(folder / browser.name)) as session:
    turns = session.turns(generator.omni.settings, "5f0c")
  assert [turn.is_target for turn in turns] == [False, True, False, True]
  assert isinstance(turns[3], ImageTurn) and turns[3].image.dtype == np.int32


def test_a_model_of_single_exchanges_is_given_the_last_alone(browse):
  generator = FakeGenerator()
  browser = browse(generator, exchanges=1)
  browser.say(STAR)
  browser.say(LARGER)
  assert generator.drawn_after[1] == [[TextTurn("now larger", False)]] and len(browser.messages) == 4


def test_of_several_pictures_another_can_be_gone_on_with(browse):
  generator = FakeGenerator()
  browser = browse(generator)
  events = browser.say(STAR, seed=8, n=2)
  names = {data["answer"]: data["picture"] for name, data in events if name == "image"}
  assert browser.messages[1]["content"] == [{"type": "picture", "name": names[0]}]
  chosen = [STAR, {"role": "assistant", "content": [{"type": "picture", "name": names[1]}]}]
  assert browser.served.ask(browser.path, {"messages": chosen}, "PUT")[0] == 200
  browser.messages = browser.kept()
  assert browser.messages == chosen
  browser.say(LARGER)
  assert generator.drawn_after[1][0][1].image.tolist() == [[9, 9], [9, 9]]


def test_a_part_of_a_picture_is_drawn_again_in_its_conversation(browse):
  generator = FakeGenerator()
  browser = browse(generator)
  browser.say(STAR, seed=8)
  (drawn,) = (part["name"] for part in browser.messages[1]["content"])
  mask = Pillow.new("RGBA", (16, 16), (0, 0, 0, 255))
  mask.paste((0, 0, 0, 0), (0, 8, 16, 16))
  file = io.BytesIO()
  mask.save(file, "PNG")
  uri = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
  browser.messages = []
  browser.say(STAR, seed=9, redraw={"picture": drawn, "mask": uri})
  (redraw,) = generator.calls[-1][-1]["redraws"]
  assert redraw.again[8:].all() and not redraw.again[:7].any() and not redraw.paints_all
  assert abs(redraw.picture - 127.5 * 1.08).max() < 1
  assert len(browser.messages) == 2 and browser.messages[1]["content"][0]["name"] != drawn
  browser.messages = []
  browser.say(STAR, seed=9, n=2, redraw={"picture": drawn, "keep": 0.25})
  varied = [redraw for *_, changes in generator.calls[2:] for redraw in changes["redraws"]]
  assert [redraw.paints_all for redraw in varied] == [True, True]


def test_an_exchange_is_taken_back(browse):
  browser = browse()
  browser.say(STAR)
  whole = browser.say(LARGER) and browser.messages
  assert browser.served.ask(browser.path, {"messages": whole[:2]}, "PUT")[2] == {"kept": 2}
  assert browser.kept() == whole[:2]
  assert browser.served.ask(browser.path, {"messages": []}, "PUT")[0] == 200 and browser.kept() == []


def test_text_and_pictures_come_as_they_are_made(browse):
  browser = browse(FakeGenerator([*text("here ", "it is", reason="image"), *image(7), *text("so")]), "free")
  events = browser.say(STAR)
  assert [name for name, _ in events] == [
    "start", "text", "text", "text_end", "tokens", "tokens", "chunk", "chunk", "image", "text", "text_end", "done",
  ]  # fmt: skip
  kinds = [part.get("text", part["type"]) for part in browser.messages[1]["content"]]
  assert kinds == ["here it is", "picture", "so"]


def test_a_picture_of_the_users_is_kept_as_it_came_and_shown_to_the_model(browse):
  generator = FakeGenerator()
  browser = browse(generator)
  status, _, reply = browser.served.ask(f"{browser.path}/pictures", RED)
  assert status == 201 and browser.served.ask(f"{browser.path}/pictures/{reply['name']}")[2] == RED
  shown = {"role": "user", "content": [{"type": "picture", "name": reply["name"]}, *LARGER["content"]]}
  browser.say(shown)
  picture, words = generator.drawn_after[0][0]
  assert (picture.image == (255, 0, 0)).all() and picture.image.shape == (16, 16, 3) and words.text == "now larger"
  assert browser.messages[0] == shown


def test_an_export_is_one_file_that_prepare_reads(browse, tmp_path):
  browser = browse()
  name = browser.served.ask(f"{browser.path}/pictures", RED)[2]["name"]
  browser.say({"role": "user", "content": [{"type": "picture", "name": name}, *STAR["content"]]})
  status, headers, line = browser.served.ask(f"{browser.path}/export")
  assert status == 200 and headers["content-disposition"] == 'attachment; filename="conversation.jsonl"'
  (tmp_path / "conversation.jsonl").write_bytes(line)
  (row,) = read(str(tmp_path / "conversation.jsonl"), name="conversations")
  assert said(row) == [("user", ["<0>", "a red star"]), ("assistant", ["<1>"])] and row.record.images[0] == RED


def test_what_was_deleted_is_gone(browse, folder):
  browser = browse()
  browser.say(STAR)
  assert browser.served.ask(browser.path, method="DELETE")[0] == 200
  assert browser.served.ask(browser.path)[0] == 404 and not list(folder.iterdir())
  assert browser.served.ask(browser.path, method="DELETE")[0] == 404


def test_where_the_page_is_left_nothing_is_kept(browse):
  import http.client
  import json

  generator = FakeGenerator()
  generator.gate.clear()
  browser = browse(generator)
  connection = http.client.HTTPConnection("127.0.0.1", browser.served.port, timeout=30)
  ask = json.dumps({"messages": [STAR]})
  connection.request("POST", f"{browser.path}/answer", ask, {"content-type": "application/json"})
  response = connection.getresponse()
  assert response.readline() == b"event: start\n"
  assert until(lambda: browser.served.engine.works == 1)
  response.close()
  connection.close()
  assert until(lambda: left(browser.served.engine))
  generator.gate.set()
  assert until(lambda: browser.served.engine.works == 0) and browser.kept() == []


def messages(*given) -> dict:
  return {"messages": list(given)}


def part(**fields) -> dict:
  return messages({"role": "user", "content": [fields]})


@pytest.mark.parametrize("body, status, said", [
  (messages(), 400, "messages must end"),
  (messages(STAR, STAR), 400, "messages must end"),
  (messages(STAR, STAR, STAR), 400, "messages[1] must be of the assistant"),
  (messages({"role": "user", "content": []}), 400, "messages[0]"),
  (messages({"role": "user", "content": "a star"}), 400, "messages[0]"),
  (messages("a star"), 400, "messages[0]"),
  (part(type="text", text=" "), 400, "a part must be"),
  (part(type="picture", name="001.png"), 400, "a part must be"),
  (part(type="picture", name="../../config.json"), 400, "a part must be"),
  (part(type="picture", name="/etc/passwd"), 400, "a part must be"),
  (part(type="text", text="star " * 500), 400, "begin another conversation"),
  ({**messages(STAR), "n": 0}, 400, "n=0"),
  ({**messages(STAR), "n": 99}, 400, "n=99"),
  ({**messages(STAR), "size": "9:1"}, 400, "this model draws"),
  ({**messages(STAR), "answer": "song"}, 400, "answer='song'"),
  ({**messages(STAR), "guidance": -1}, 400, "guidance=-1"),
  ({**messages(STAR), "seed": "x"}, 400, "seed='x'"),
  ({**messages(STAR), "sede": 1}, 400, "'sede' is no field"),
  ({**messages(STAR), "redraw": "all"}, 400, "redraw must be an object"),
  ({**messages(STAR), "redraw": {}}, 404, ""),
  ({**messages(STAR), "redraw": {"picture": "../../config.json"}}, 404, ""),
  ({**messages(STAR), "redraw": {"picture": "001.png", "keep": 1}}, 400, "keep=1"),
  ({**messages(STAR), "redraw": {"picture": "001.png", "part": 1}}, 400, "'part' is no field"),
])  # fmt: skip
def test_what_cannot_be_answered_is_one_clear_error(browse, folder, body, status, said):
  browser = browse()
  found, _, reply = browser.served.ask(f"{browser.path}/answer", body)
  assert found == status and said in reply["error"]["message"] and str(folder) not in reply["error"]["message"]
  assert not browser.served.engine.works and browser.kept() == []


def test_pictures_that_are_none_are_refused_and_not_kept(browse, folder):
  browser = browse(limits=Limits(picture_pixels=2**16))
  bad = {name: content for name, (content, _) in odd_pictures.bad().items()}
  large = {"large.png": odd_pictures.encoded(np.zeros((300, 300, 3), np.uint8), "PNG")}
  for name, content in {**bad, **large}.items():
    status, _, reply = browser.served.ask(f"{browser.path}/pictures", content)
    assert status == (413 if name in large else 400) and "the picture" in reply["error"]["message"], name
  assert not folder.exists() or not list(folder.glob("*/*.*"))
  for name, content in odd_pictures.odd().items():
    assert browser.served.ask(f"{browser.path}/pictures", content)[0] == 201, name


def test_a_conversation_of_another_size_of_pictures_is_refused_without_a_path(browse, folder):
  browser = browse()
  browser.say(STAR)
  other = browse(FakeGenerator(**{"data.image_size": 24}))
  other.name = browser.name
  status, _, reply = other.served.ask(f"{other.path}/answer", {"messages": [*browser.messages, LARGER]})
  assert status == 409 and "16×16" in reply["error"]["message"] and str(folder) not in reply["error"]["message"]


node = pytest.mark.skipif(not shutil.which("node"), reason="needs node")


@node
@pytest.mark.parametrize("name", [name for name in app.PAGE if name.endswith(".js")])
def test_scripts_are_javascript(name, tmp_path):
  (tmp_path / "script.mjs").write_bytes((PAGE / name).read_bytes())
  done = subprocess.run(["node", "--check", tmp_path / "script.mjs"], capture_output=True, text=True)
  assert not done.returncode, done.stderr


@node
def test_the_page_reads_events_however_they_are_cut_and_edits_conversations(tmp_path):
  for name in ("api", "talk"):
    (tmp_path / f"{name}.mjs").write_bytes((PAGE / f"{name}.js").read_bytes())
  script = tmp_path / "script.mjs"
  script.write_text((Path(__file__).parent / "page_script.mjs").read_text())
  done = subprocess.run(["node", script], capture_output=True, text=True)
  assert not done.returncode, done.stderr
