"""Records as they are stored."""

import pytest

from omniimage.data.records import (
  BadRecord,
  Picture,
  Record,
  Text,
  Turn,
  captioned,
  from_bytes,
  text_alone,
  to_bytes,
  turns_from_json,
  turns_to_json,
)

EDIT = Record(
  "a/b.jpg",
  (
    Turn("user", (Picture(0), Text(("make the boots red", "red boots, please")))),
    Turn("assistant", (Picture(1), Text(("done ✓",)))),
  ),
  (b"\xff\xd8one", b"two"),
)


@pytest.mark.parametrize("record", [EDIT, captioned("k", ["a", "b"], b"x"), text_alone("ключ", "🙂\n<image>")])
def test_a_record_comes_back_as_it_was_stored(record):
  assert from_bytes(to_bytes(record)) == record
  assert turns_from_json(turns_to_json(record.turns), len(record.images)) == record.turns


@pytest.mark.parametrize(
  "turns, images, says",
  [
    ("[", 0, "no JSON"),
    ("{}", 0, "must be a JSON list"),
    ("[]", 0, "at least one turn"),
    ("[1]", 0, "turn 0 must be"),
    ('[{"role": "bot", "content": [{"text": ["a"]}]}]', 0, "role 'bot'"),
    ('[{"role": "user", "content": []}]', 0, "turn 0 is empty"),
    ('[{"role": "user", "content": [{"text": []}]}]', 0, "turn 0: a part is"),
    ('[{"role": "user", "content": [{"text": "a"}]}]', 0, "turn 0: a part is"),
    ('[{"role": "user", "content": [{"image": true}]}]', 2, "turn 0: a part is"),
    ('[{"role": "user", "content": [{"image": 1}, {"image": 0}]}]', 2, "each to be shown once, in order"),
    ('[{"role": "user", "content": [{"image": 0}]}]', 2, "the record has 2"),
    ("[" * 100_000, 0, "no JSON"),
  ],
)
def test_what_is_no_conversation_is_named(turns, images, says):
  with pytest.raises(BadRecord, match=says):
    turns_from_json(turns, images)


@pytest.mark.parametrize("stored", [b"", b"\x00\x01", b"\x0a\x02\x0a\x00", b"not a record"])
def test_bytes_that_are_no_record_are_named(stored):
  with pytest.raises(BadRecord, match="no record"):
    from_bytes(stored)


def test_a_record_whose_turns_leave_an_image_out_is_not_stored():
  with pytest.raises(BadRecord, match="each to be shown once"):
    to_bytes(Record("k", EDIT.turns[:1], EDIT.images))
