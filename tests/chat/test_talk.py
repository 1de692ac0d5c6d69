"""Lines of a conversation: what they say and do, what is shown of the answer, and what is kept of it."""

import io
import json
import signal

import numpy as np
import pytest
from PIL import Image as Pillow

from omniimage import files
from omniimage.chat.commands import COMMANDS
from omniimage.chat.display import Display
from omniimage.chat.folder import CONVERSATIONS, SessionFolder
from omniimage.chat.learnt import Learnt
from omniimage.chat.talk import Talk
from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.errors import UserError
from tests import small
from tests.chat.fake_chat import FakeChat, FakeGenerator, image, text
from tests.data.formats.made import read, said

TOKENIZER = "5f0c"


class Opened:
  """A talk over a folder with a fake model, and what it has printed."""

  def __init__(self, path, *answers, tokenizer=TOKENIZER, settings=None, exchanges=None, **options):
    self.generator, self.folder = FakeGenerator(*answers), SessionFolder(path)
    self.out, self.status = io.StringIO(), io.StringIO()
    turns = self.folder.turns(settings or self.generator.omni.settings, tokenizer)
    display = Display(self.out, self.status)
    self.talk = Talk(
      self.generator, Learnt("free", exchanges), self.folder, turns, display, open_chat=FakeChat, **options
    )

  def hear(self, *lines: str):
    for line in lines:
      self.talk.hear(line)
    return self

  @property
  def turns(self) -> list:
    return [turn.text if isinstance(turn, TextTurn) else turn.image.tolist() for turn in self.talk._chat.turns]

  def close(self):
    self.folder.close()


@pytest.fixture
def opened(tmp_path):
  """Opens the session `tmp_path / "cats"`; all are closed in the end."""
  talks = []

  def open_talk(*answers, **options) -> Opened:
    talks.append(Opened(tmp_path / "cats", *answers, **options))
    return talks[-1]

  yield open_talk
  for talk in talks:
    talk.close()


def kept(path) -> list:
  """What `launch.prepare --format=conversations` reads of a session."""
  return [said(row) for row in read(str(path / CONVERSATIONS), name="conversations")]


def picture(path, color="red", size=(40, 30)):
  Pillow.new("RGB", size, color).save(path)
  return path


def test_texts_and_pictures_are_shown_as_they_come_and_kept_as_a_conversation(opened, tmp_path):
  talk = opened(text("a ", "star", reason="image") + image(3) + text("done"))
  talk.hear("draw a star")
  assert talk.out.getvalue() == f"a star\npicture: {tmp_path}/cats/001.png\ndone\n"
  assert kept(tmp_path / "cats") == [[("user", ["draw a star"]), ("assistant", ["a star", "<0>", "done"])]]
  np.testing.assert_array_equal(np.asarray(Pillow.open(tmp_path / "cats/001.png")), 131)
  assert talk.generator.asked[0][1:] == ("free", {})


def test_pictures_wait_for_what_is_said_next_and_lie_in_the_session_as_they_came(opened, tmp_path):
  files = [picture(tmp_path / name) for name in ("a cat.png", "it's.png", 'say "cat".png')]
  talk = opened(text("a cat"))
  talk.hear(f"/image {files[0]}", f"/image \"{files[1]}\" '{files[2]}'", f"/image {files[1]}", "what is it?")
  shown = talk.generator.asked[0][0]
  assert [type(turn) for turn in shown] == [ImageTurn] * 4 + [TextTurn] and shown[0].image.shape == (16, 16, 3)
  assert kept(tmp_path / "cats")[0][0] == ("user", ["<0>", "<1>", "<2>", "<3>", "what is it?"])
  assert (tmp_path / "cats/001.png").read_bytes() == files[0].read_bytes()


@pytest.mark.parametrize("line, problem", [
  ("/image nowhere.png", "nowhere.png cannot be read"),
  ("/image", "give the name of a picture"),
  ("/image {text}", "no picture: text"),
  ("/image {text} 'other", "cannot be read"),
  ("/dance", "there is no command /dance; /help lists them"),
  ("/set guidance", "write it as /set guidance=2"),
  ("/set guidance=much", "is no number"),
  ("/set guidance=nan", "guidance=nan must be from 0 to 100"),
  ("/set chunk_rows=3", "must divide"),
  ("/set size=3", "there is no 'size' to set; there are temperature"),
  ("/seed -1", "the seed '-1' must be a whole number"),
  ("/undo all", "/undo stands alone"),
  ("/save", "give the folder to make"),
  ("/save {there}", "is there already"),
  ("caf\udce9", "no text in UTF-8"),
  ("/image caf\udce9.png", "no text in UTF-8"),
])  # fmt: skip
def test_a_line_that_cannot_be_is_one_line_and_nothing_is_asked_or_kept(opened, tmp_path, line, problem):
  (tmp_path / "notes.txt").write_text("a picture of a cat")
  talk = opened(text("never"))
  with pytest.raises(UserError, match=problem) as raised:
    talk.hear(line.format(text=tmp_path / "notes.txt", there=tmp_path))
  assert "\n" not in str(raised.value)
  assert not talk.generator.asked and not (tmp_path / "cats" / CONVERSATIONS).exists() and not talk.out.getvalue()


def test_an_empty_line_says_nothing_but_shows_the_pictures_that_wait(opened, tmp_path):
  talk = opened(text("a cat")).hear("  ")
  assert not talk.generator.asked and "/help" in talk.status.getvalue()
  talk.hear(f"/image {picture(tmp_path / 'cat.png')}", "")
  assert [type(turn) for turn in talk.generator.asked[0][0]] == [ImageTurn]


def test_two_slashes_say_one(opened):
  assert opened(text("yes")).hear("//help").turns == ["/help", "yes"]


def test_undo_takes_back_pictures_that_wait_then_exchanges_also_on_disk(opened, tmp_path):
  talk = opened(text("one"), text("two")).hear("a", "b", f"/image {picture(tmp_path / 'cat.png')}", "/undo")
  assert talk.turns == ["a", "one", "b", "two"] and not talk.talk.waits
  talk.hear("/undo")
  assert talk.turns == ["a", "one"] and kept(tmp_path / "cats") == [[("user", ["a"]), ("assistant", ["one"])]]
  talk.hear("/undo", "/undo")
  assert talk.turns == [] and (tmp_path / "cats" / CONVERSATIONS).read_text() == ""
  assert talk.status.getvalue().endswith("nothing was said yet\n")


def test_new_begins_another_conversation_of_the_session(opened, tmp_path):
  talk = opened(text("one"), image(1)).hear("a", "/new", "b")
  assert talk.turns == ["b", [[1, 1], [1, 1]]]
  assert kept(tmp_path / "cats") == [
    [("user", ["a"]), ("assistant", ["one"])], [("user", ["b"]), ("assistant", ["<0>"])]
  ]  # fmt: skip


def test_a_model_of_single_exchanges_begins_anew_with_each_request(opened, tmp_path):
  session = opened(text("one"), text("two"), text("three"), exchanges=1).hear("a", "b")
  assert session.turns == ["b", "two"] and session.talk.seed == 2
  assert kept(tmp_path / "cats") == [
    [("user", ["a"]), ("assistant", ["one"])], [("user", ["b"]), ("assistant", ["two"])]
  ]  # fmt: skip
  session.hear("/undo", "c")
  assert session.turns == ["c", "three"] and len(kept(tmp_path / "cats")) == 2


def test_a_seed_is_that_of_the_next_answer_and_counts_on(opened):
  talk = opened(text("one"), text("two"), text("three"), seed=5)
  assert talk.talk.seed == 5
  assert talk.hear("a", "/seed 40").talk.seed == 40
  assert talk.hear("b").talk.seed == 41
  assert talk.hear("/undo").talk.seed == 40
  assert talk.hear("b", "/new").talk.seed == 41


def test_settings_hold_from_the_next_answer_on(opened):
  talk = opened(text("one"), text("two")).hear("a", "/set guidance=2 temperature=.5", "/set temperature=0", "b")
  assert [changes for _, _, changes in talk.generator.asked] == [{}, {"guidance": 2, "temperature": 0}]
  assert "guidance=2" in talk.status.getvalue()


def test_a_session_goes_on_where_it_was_and_from_the_codes_that_were_drawn(opened, tmp_path):
  first = opened(text("hm", reason="image") + image(7))
  first.hear(f"/image {picture(tmp_path / 'cat.png')}", "a")
  turns = first.turns
  first.close()
  second = opened(image(9))
  assert second.turns == turns and turns[-1] == [[7, 7], [7, 7]]
  second.hear("again")
  assert kept(tmp_path / "cats") == [
    [("user", ["<0>", "a"]), ("assistant", ["hm", "<1>"]), ("user", ["again"]), ("assistant", ["<2>"])]
  ]
  assert sorted(path.name for path in (tmp_path / "cats").glob("*.png")) == ["001.png", "002.png", "003.png"]


def test_another_tokenizer_reads_the_drawn_pictures_anew(opened):
  opened(image(7)).hear("a").close()
  turns = opened(tokenizer="other").talk._chat.turns
  assert turns[1].is_target and turns[1].image.shape == (16, 16, 3)


def test_a_session_of_another_size_is_refused(opened):
  opened(image(7)).hear("a").close()
  with pytest.raises(UserError, match="pictures of 16×16 pixels, and this model draws 32×32"):
    opened(settings=small.settings(**{"data.image_size": 32}))


@pytest.mark.parametrize("line", [
  "{", "[1]", "{}", '{"messages": []}', '{"messages": [{"role": "assistant", "content": "a"}]}',
  '{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}',
  '{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "../a.png"}}]}]}',
])  # fmt: skip
def test_a_session_that_is_none_is_refused_and_left_as_it_is(tmp_path, line):
  (tmp_path / CONVERSATIONS).write_text(line + "\n")
  with pytest.raises(UserError, match=f"{CONVERSATIONS}:1 is no"):
    SessionFolder(tmp_path)
  assert (tmp_path / CONVERSATIONS).read_text() == line + "\n"


def test_a_session_is_one_programs_at_a_time_and_an_empty_one_leaves_nothing(tmp_path):
  folder = SessionFolder(tmp_path / "a" / "cats")
  with pytest.raises(UserError, match="is in use"):
    SessionFolder(tmp_path / "a" / "cats")
  folder.close()
  assert not (tmp_path / "a" / "cats").exists()


def test_save_copies_all_but_the_lock(opened, tmp_path):
  opened(image(1)).hear("a", f"/save {tmp_path}/my copy")
  assert sorted(path.name for path in (tmp_path / "my copy").iterdir()) == ["001.png", CONVERSATIONS]
  assert kept(tmp_path / "my copy") == kept(tmp_path / "cats")


def test_a_full_conversation_says_what_to_do(opened):
  talk = opened(text("one")).hear("a")
  talk.talk._chat.full = True
  with pytest.raises(UserError, match="90 tokens: /new begins another"):
    talk.hear("b")
  assert talk.turns == ["a", "one"]


@pytest.mark.parametrize("events, shown, turns", [
  (0, "", []),
  (1, "a \n", ["a "]),
  (2, "a star\n", ["a star"]),
  (4, "a star\n", ["a star"]),
  (8, "a star\npicture: {}/001.png\n", ["a star", [[3, 3], [3, 3]]]),
])  # fmt: skip
def test_ctrl_c_stops_an_answer_and_what_was_shown_stays(opened, tmp_path, events, shown, turns):
  answer = text("a ", "star", reason="image") + image(3) + text("done")
  answer.insert(events, lambda: signal.raise_signal(signal.SIGINT))
  talk = opened(answer, text("go on"), interruptible=True).hear("draw")
  assert talk.out.getvalue() == shown.format(tmp_path / "cats")
  assert talk.turns == (["draw", *turns] if turns else [])
  assert len(kept(tmp_path / "cats")) == bool(turns) if turns else not (tmp_path / "cats" / CONVERSATIONS).exists()
  talk.hear("next")
  assert talk.turns[-2:] == ["next", "go on"]


def test_an_answer_that_says_nothing_is_taken_back(opened, tmp_path):
  talk = opened(text(), text(" ")).hear("a", "b")
  assert talk.turns == [] and not (tmp_path / "cats" / CONVERSATIONS).exists()
  assert talk.status.getvalue().count("taken back") == 2


class Killed(BaseException):
  pass


def test_a_kill_at_any_moment_leaves_a_session_that_can_be_read_and_gone_on_with(tmp_path, monkeypatch):
  answers = [text("a", reason="image") + image(1) + text("b"), image(2)]
  lines = [f"/image {picture(tmp_path / 'cat.png')}", "draw", "/new", "again"]
  rename, seen = files.finish, []
  for moment in range(100):
    path, calls = tmp_path / str(moment), []

    def finish(*args, moment=moment, calls=calls):
      calls.append(args)
      if len(calls) > moment:
        raise Killed
      rename(*args)

    monkeypatch.setattr(files, "finish", finish)
    talk = Opened(path, *answers)
    try:
      talk.hear(*lines)
      break
    except Killed:
      seen.append(kept(path) if (path / CONVERSATIONS).exists() else [])
    finally:
      monkeypatch.setattr(files, "finish", rename)
      talk.folder._lock.close()
    again = Opened(path, text("yes"))
    again.hear("more")
    assert kept(path)[-1][-1] == ("assistant", ["yes"])
    again.close()
  assert len(seen) > 5 and [len(turns) for turns in seen[-1]] == [2]
  assert seen[2] == [[("user", ["<0>", "draw"]), ("assistant", ["a"])]]


def test_what_a_model_writes_does_not_command_the_terminal(opened, tmp_path):
  talk = opened(text("\x1b[2Jred\ttext\n")).hear("a")
  assert talk.out.getvalue() == "\ufffd[2Jred\ttext\n\n"
  stored = json.loads((tmp_path / "cats" / CONVERSATIONS).read_text())
  assert stored["messages"][1]["content"] == [{"type": "text", "text": "\x1b[2Jred\ttext\n"}]


def test_help_lists_every_command(opened):
  shown = opened().hear("/help").status.getvalue()
  assert all(f"/{name}" in shown for name in COMMANDS)
