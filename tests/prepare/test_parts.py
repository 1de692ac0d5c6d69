"""What is known of a record before it is read: its lengths, the size of its picture, what it is equal to, its split."""

import pytest

from omniimage.data.formats.format import Row
from omniimage.data.images import BadImage
from omniimage.data.records import Picture, Record, Text, Turn, captioned, text_alone
from omniimage.prepare import parts
from tests.prepare.fake_format import picture

SMALL, TALL, WIDE = picture(0, (4, 4)), picture(1, (4, 9)), picture(2, (11, 5))


def shown(*roles: str) -> tuple[Turn, ...]:
  return tuple(Turn(role, (Picture(i),)) for i, role in enumerate(roles))


@pytest.mark.parametrize(
  ("turns", "images", "size"),
  [
    (shown("user", "assistant", "user"), (SMALL, TALL, WIDE), (9, 4)),  # what is drawn decides
    (shown("assistant", "assistant", "user"), (SMALL, TALL, WIDE), (9, 4)),  # the last of them
    (shown("user", "user"), (SMALL, WIDE), (5, 11)),  # where nothing is drawn, the last
    ((Turn("assistant", (Text(("a",)),)),), (), (0, 0)),
  ],
)
def test_the_size_is_that_of_the_last_picture_that_is_drawn(turns, images, size):
  _, _, count, height, width, _ = parts.examine(Record("a", turns, images))
  assert (height, width) == size and count == len(images)


def test_lengths_are_bounds_over_alternatives_and_sums_over_texts():
  turns = (Turn("user", (Text(("é", "abc")),)), Turn("assistant", (Text(("de", "f")), Text(("\ud800",)))))
  tokens, text_bytes, *_ = parts.examine(Record("a", turns))
  assert text_bytes == 3 + 2 + 1 and 0 < tokens <= text_bytes + 9


def test_a_broken_picture_among_whole_ones_is_noticed():
  with pytest.raises(BadImage):
    parts.examine(Record("a", shown("user", "assistant"), (SMALL, TALL[:60])))


def test_records_are_the_same_by_pictures_and_turns_whatever_their_keys():
  one = captioned("one", ["a cat"], SMALL)
  assert parts.content(one) == parts.content(captioned("two", ["a cat"], SMALL))
  others = [captioned("one", ["a dog"], SMALL), captioned("one", ["a cat"], TALL), text_alone("one", "a cat")]
  others += [Record("one", shown("user", "user"), images) for images in ((SMALL, TALL), (TALL, SMALL))]
  assert len({parts.content(record) for record in [one, *others]}) == 6


def test_what_is_held_out_is_a_share_and_stays_so_when_the_share_grows():
  rows = [Row(str(i), text_alone(str(i), f"text {i}")) for i in range(2000)]
  few, more = ({row.key for row in rows if parts.is_held_out(row, share)} for share in (0.1, 0.3))
  assert few < more and 160 < len(few) < 240 and 540 < len(more) < 660
  assert not any(parts.is_held_out(row, 0.0) for row in rows)
  assert parts.is_held_out(Row("a", rows[0].record, split="test"), 0.0)
  assert not parts.is_held_out(Row("a", rows[0].record, split="train"), 0.99)


@pytest.mark.parametrize(
  ("problem", "kind"),
  [
    ("no caption: 9.txt is empty", "no caption"),
    ("300×2 pixels: a side", "N×N pixels"),
    ("an empty file (0 bytes)", "an empty file (N bytes)"),
    ("1,000 bytes, more than 3.5", "N bytes, more than N"),
  ],
)
def test_problems_of_a_kind_are_counted_together(problem, kind):
  assert parts.kind(problem) == kind
