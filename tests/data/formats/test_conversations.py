import base64
import json

import pyarrow
import pytest
from pyarrow import parquet

from omniimage.errors import UserError
from tests.data.formats.made import picture, problems, read, said, write

SEEN = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]
DRAWN = [{"role": "user", "content": "Draw a cat."}, {"role": "assistant", "content": "<image>"}]


def chat(tmp_path, *rows) -> str:
  write(tmp_path, {"a.png": picture(1), "in/b.png": picture(2)})
  return write(tmp_path, {"chat.jsonl": "".join(json.dumps(row) + "\n" for row in rows)}) + "/chat.jsonl"


def uri(content: bytes) -> str:
  return "data:image/png;base64," + base64.b64encode(content).decode()


def test_pictures_stand_at_their_placeholders(tmp_path):
  found = read(chat(tmp_path, {"image": "a.png", "conversations": SEEN}, {"images": ["in/b.png"], "messages": DRAWN}))
  assert said(found[0]) == [("user", ["<0>", "What is it?"]), ("assistant", ["A cat."])]
  assert said(found[1]) == [("user", ["Draw a cat."]), ("assistant", ["<0>"])]
  assert [row.record.images for row in found] == [(picture(1),), (picture(2),)]
  assert [row.key for row in found] == ["chat.jsonl:1", "chat.jsonl:2"]


def test_several_pictures_keep_their_order_within_and_over_turns(tmp_path):
  turns = [
    {"role": "system", "content": "You draw."},
    {"role": "user", "content": "<image> and <image>: mix them"},
    {"role": "assistant", "content": "Here: <image>"},
  ]
  found = read(chat(tmp_path, {"images": ["a.png", "in/b.png", "a.png"], "messages": turns}))
  assert said(found[0])[1:] == [("user", ["<0>", "and", "<1>", ": mix them"]), ("assistant", ["Here:", "<2>"])]
  assert found[0].record.images == (picture(1), picture(2), picture(1))


def test_parts_hold_paths_data_uris_or_take_the_next_of_the_list(tmp_path):
  def parts(picture_part):
    user = {"role": "user", "content": [{"type": "text", "text": "What?"}, picture_part]}
    return [user, {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}]

  rows = [
    {"messages": parts({"type": "image_url", "image_url": {"url": "a.png"}})},
    {"messages": parts({"type": "image_url", "image_url": uri(picture(1))})},
    {"messages": parts({"type": "image", "image": "a.png"})},
    {"messages": parts({"type": "image", "url": "a.png"})},
    {"messages": parts({"type": "image", "path": "a.png"})},
    {"images": ["a.png"], "messages": parts({"type": "image"})},
    {"images": [{"path": "a.png"}], "messages": parts({"type": "text", "text": "<image>"})},
  ]
  found = read(chat(tmp_path, *rows))
  assert all(said(row) == [("user", ["What?", "<0>"]), ("assistant", ["A cat."])] for row in found)
  assert {row.record.images for row in found} == {(picture(1),)} and len(found) == len(rows)


@pytest.mark.parametrize("value", [picture(1), {"bytes": picture(1), "path": None}, [{"bytes": picture(1)}]])
def test_parquet_holds_conversations_and_their_pictures(tmp_path, value):
  rows = [{"image": value, "conversations": SEEN}, {"image": value, "conversations": SEEN[1:]}]
  parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "chat.parquet")
  found = read(tmp_path)
  assert said(found[0]) == [("user", ["<0>", "What is it?"]), ("assistant", ["A cat."])]
  assert found[0].record.images == (picture(1),)
  assert problems(found) == {
    "chat.parquet:1": "image has 1 pictures, the texts have 0 <image>; each picture needs its place"
  }


def test_a_placeholder_is_text_where_a_line_gives_no_picture(tmp_path):
  turns = [{"from": "human", "value": "What is <image> in HTML?"}, {"from": "gpt", "value": "No tag; <img> is."}]
  assert said(read(chat(tmp_path, {"conversations": turns}))[0])[0] == ("user", ["What is <image> in HTML?"])


@pytest.mark.parametrize(
  ("row", "reason"),
  [
    ({"image": "a.png", "conversations": SEEN[1:]}, "image has 1 pictures, the texts have 0 <image>"),
    ({"images": ["a.png"], "messages": [*DRAWN, *DRAWN]}, "images has 1 pictures, the texts have 2 <image>"),
    ({"image": "c.png", "conversations": SEEN}, "image[0]: there is no file c.png"),
    ({"image": "../c.png", "conversations": SEEN}, "image[0]: ../c.png leads outside"),
    ({"image": "/etc/passwd", "conversations": SEEN}, "outside"),
    ({"image": "http://example.org/c.png", "conversations": SEEN}, "is an address"),
    ({"image": 7, "conversations": SEEN}, "image[0]: a picture must be a file name"),
    ({"conversations": [{"from": "robot", "value": "x"}]}, "conversations[0].from is 'robot'; expected user or human"),
    ({"conversations": [SEEN[1], {"from": "human"}]}, "conversations[1].value must be a text"),
    ({"conversations": [{"from": "gpt", "value": " "}]}, "conversations[0].value is empty"),
    ({"conversations": [{"from": "human", "value": "hm"}]}, "the assistant says nothing"),
    ({"conversations": "hm"}, "conversations must be a list"),
    ({"conversations": ["hm"]}, "conversations[0] must be"),
    ({"conversations": []}, "there is no conversation; it has conversations"),
    ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "messages[0].content[0] must be"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "data:,x"}]}]}, "base64"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "data:a;base64,?"}]}]}, "broken"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "0 pictures, the texts have 1 <image>"),
    ({"messages": [{"role": "assistant", "content": "half \ud83d"}]}, "messages[0].content is not UTF-8"),
  ],
)
def test_a_bad_line_says_its_file_line_and_field(tmp_path, row, reason):
  good = {"image": "a.png", "conversations": SEEN}
  found = read(chat(tmp_path, good, row), "conversations")
  assert reason in problems(found)["chat.jsonl:2"] and found[0].record


def test_pictures_may_lie_in_another_folder_than_the_conversations(tmp_path):
  row = {"image": "in/b.png", "conversations": SEEN}
  write(tmp_path, {"images/in/b.png": picture(2), "lists/chat.jsonl": json.dumps(row)})
  found = read(tmp_path / "images", metadata="../lists/chat.jsonl")
  assert found[0].record.images == (picture(2),)
  row["image"] = "images/in/b.png"
  write(tmp_path, {"lists/chat.jsonl": json.dumps(row)})
  assert read(tmp_path)[0].record.images == (picture(2),)


def test_a_list_without_conversations_names_what_it_has(tmp_path):
  write(tmp_path, {"chat.jsonl": '{"dialog": []}\n'})
  with pytest.raises(UserError, match=r"no 'conversations' or 'messages'; it has dialog"):
    read(tmp_path, "conversations")
