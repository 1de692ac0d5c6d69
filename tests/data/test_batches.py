"""Batches: a batch is a function of (seed, batch index), and holds exactly what its records say."""

import dataclasses
import logging
import re

import numpy as np
import pytest

from omniimage import strict_json
from omniimage.data import conversation
from omniimage.data.batches import Batches
from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.data.sources.source import Catalogue, Source, SourceSettings
from omniimage.data.tasks import TextToImage
from omniimage.errors import UserError
from omniimage.settings import DataSettings, SettingsError
from omniimage.size import Size
from omniimage.streams import Stream, generator
from omniimage.vocabulary import Vocabulary

SIZE = Size(rows=2, columns=2, pixels_per_token=4)  # of the images of `Sketches`
ROWS = 6
DATA = DataSettings(
  source=SourceSettings("sketches"),
  image_size=8,
  aspect_ratios=("1:1",),
  sequence_length=96,
  images_per_row=5,
  packing_rows=16,
  drop_text=0.1,
  vocabulary="builtin",
  max_bad_records=1.0,
  workers=0,
)
VOCABULARY = Vocabulary(text_size=256, image_codes=10)


class Bytes:
  """A text tokenizer that needs no file."""

  def encode(self, text: str) -> list[int]:
    return list(text.encode())


class Sketches(Source):
  """Records of 0 to 3 images and texts between them, another text in every epoch. `broken` ones cannot be read."""

  def __init__(self, n: int = 200, broken: tuple[int, ...] = (), size: Size = SIZE):
    self.n, self.broken, self.size = n, broken, size

  def __len__(self) -> int:
    return self.n

  def catalogue(self):
    images = np.arange(self.n) % 4
    return Catalogue(conversation.length(np.full(self.n, 25), images, self.size), images)

  def record(self, index: int, rng: np.random.Generator):
    if index in self.broken:
      raise OSError(f"file {index} is truncated")
    turns = [TextTurn("a" + "x" * rng.integers(15), is_target=False)]
    for number in range(index % 4):
      turns.append(
        ImageTurn(np.full((*self.size.pixels, 3), rng.integers(1, 256), np.uint8), is_target=number % 2 == 0)
      )
    return [*turns, TextTurn(f"{index:05d}", is_target=True)]

  def task(self, index: int) -> TextToImage:
    return TextToImage()


def batches_of(source=None, seed=0, **changes) -> Batches:
  data = dataclasses.replace(DATA, **changes)
  return Batches(source or Sketches(), data, VOCABULARY, Bytes(), (SIZE,), seed)


def assert_equal(batch, other):
  assert set(batch) == set(other)
  for name in batch:
    np.testing.assert_array_equal(batch[name], other[name], err_msg=name)


def is_equal(batch, other) -> bool:
  return all(np.array_equal(batch[name], other[name]) for name in batch)


def conversations(batches: Batches, batch_index: int):
  """(record, fields) of every conversation of a batch, cut out of its row again."""
  batch = batches.batch(batch_index, ROWS)
  for row, records in enumerate(batches.record_ids(batch_index, ROWS)):
    for segment, record in enumerate(records, start=1):
      (where,) = np.nonzero(batch["segments"][row] == segment)
      slots = batch["image_mask"][row] & np.isin(batch["image_start"][row], where)
      fields = {name: batch[name][row, where] for name in ("tokens", "positions", "loss_weights")}
      fields |= {name: batch[name][row, slots] for name in ("images", "image_is_target")}
      fields["image_start"] = batch["image_start"][row, slots] - (where[0] if len(where) else 0)
      yield record, where, fields


# ------------------------------------------------------------------------------------------------- what a batch is


def test_shapes_and_types_are_those_of_the_contract():
  batch = batches_of().batch(0, ROWS)
  assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
    "tokens": ((6, 96), "int32"),
    "positions": ((6, 96, 3), "int32"),
    "segments": ((6, 96), "int32"),
    "loss_weights": ((6, 96), "float32"),
    "images": ((6, 5, 8, 8, 3), "uint8"),
    "image_mask": ((6, 5), "bool"),
    "image_start": ((6, 5), "int32"),
    "image_is_target": ((6, 5), "bool"),
  }


def test_every_conversation_of_a_packed_row_equals_its_own_unpacked_encoding():
  source, batches, seen = Sketches(), batches_of(drop_text=0.0), 0
  for batch_index in range(4):
    for record, where, fields in conversations(batches, batch_index):
      rng = generator(Stream.RECORDS, 0, 0, record)  # batches 0 … 3 lie in epoch 0
      rng.random()  # is its text dropped?
      alone = conversation.encode(source.record(record, rng), Bytes(), VOCABULARY, SIZE)
      assert np.array_equal(where, np.arange(where[0], where[-1] + 1))
      for name, expected in (
        ("tokens", alone.tokens),
        ("positions", alone.positions),
        ("loss_weights", alone.loss_weights),
        ("images", np.array(alone.images).reshape(-1, 8, 8, 3)),
        ("image_start", alone.image_starts),
        ("image_is_target", alone.image_is_target),
      ):
        np.testing.assert_array_equal(fields[name], expected, err_msg=name)
      seen += 1
  assert seen > 40


def test_segments_count_up_in_a_row_and_padding_is_zero_and_weightless():
  batches = batches_of()
  batch = batches.batch(1, ROWS)
  for row in range(ROWS):
    segments = batch["segments"][row]
    used = segments[segments > 0]
    records = len(batches.record_ids(1, ROWS)[row])
    assert np.array_equal(segments[: len(used)], used) and sorted(set(used)) == list(range(1, records + 1))
    assert set(np.diff(used)) <= {0, 1}
  padding = batch["segments"] == 0
  assert padding.any()
  assert (batch["tokens"][padding] == VOCABULARY.pad).all()
  assert not batch["positions"][padding].any() and not batch["loss_weights"][padding].any()


def test_image_starts_point_at_the_first_code_and_unused_slots_are_zero():
  batch = batches_of().batch(1, ROWS)
  used = batch["image_mask"]
  rows, _ = np.nonzero(used)
  starts = batch["image_start"][used]
  assert (batch["tokens"][rows, starts] == VOCABULARY.codes).all()
  assert (batch["tokens"][rows, starts - 3] == VOCABULARY.image).all()
  assert (batch["tokens"][rows, starts + SIZE.tokens] == VOCABULARY.end_image).all()
  assert (batch["tokens"] == VOCABULARY.image).sum() == used.sum() > 0
  for name in ("images", "image_start", "image_is_target"):
    assert not batch[name][~used].any()


@pytest.mark.parametrize("size", [SIZE, Size(rows=2, columns=3, pixels_per_token=4)])
def test_a_batch_has_the_size_that_its_index_says_in_its_images_and_in_its_tokens(size):
  batches = Batches(Sketches(size=size), DATA, VOCABULARY, Bytes(), (size,), seed=0)
  for batch_index in (0, 7):
    assert batches.size_of(batch_index) == size
    batch = batches.batch(batch_index, ROWS)
    assert batch["images"].shape[2:] == (*size.pixels, 3) and batch["image_mask"].any() and not batches.bad_records
    for row, slot in zip(*np.nonzero(batch["image_mask"])):
      first = batch["image_start"][row, slot]
      opening = [VOCABULARY.image, VOCABULARY.size(size.rows), VOCABULARY.size(size.columns)]
      expected = [*opening, *[VOCABULARY.codes] * size.tokens, VOCABULARY.end_image]
      assert batch["tokens"][row, first - 3 : first + size.tokens + 1].tolist() == expected


# ------------------------------------------------------------------------------------- a function of (seed, index)


class TwoSizes(Sketches):
  """Every fifth record is of the second size."""

  sizes = (SIZE, Size(rows=1, columns=3, pixels_per_token=4))

  def catalogue(self):
    buckets, images = (np.arange(self.n) % 5 == 0).astype(int), np.arange(self.n) % 4
    tokens = [conversation.length(np.full(self.n, 25), images, size) for size in self.sizes]
    return Catalogue(np.choose(buckets, tokens), images, buckets)

  def record(self, index: int, rng: np.random.Generator):
    return Sketches(size=self.sizes[index % 5 == 0]).record(index, rng)


@pytest.mark.parametrize("process_count", [1, 2, 4])
def test_batches_of_several_sizes_are_the_same_for_any_number_of_processes(process_count):
  rows, found = 8, set()
  whole, own = (Batches(TwoSizes(), DATA, VOCABULARY, Bytes(), TwoSizes.sizes, 0) for _ in range(2))
  for index in (3, 700, 4, 1029, 5):
    batch = whole.batch(index, rows)
    size = own.size_of(index)
    found.add(size)
    assert batch["images"].shape[2:4] == size.pixels and batch["image_mask"].any()
    slices = [own.batch(index, rows, part) for part in np.split(np.arange(rows), process_count)]
    assert_equal({name: np.concatenate([part[name] for part in slices]) for name in batch}, batch)
    sizes = {record % 5 == 0 for row in whole.record_ids(index, rows) for record in row}
    assert sizes == {size != SIZE}
  assert len(found) == 2 and not whole.bad_records


@pytest.mark.parametrize("process_count", [2, 3, 6])
def test_the_slices_of_all_processes_are_the_whole_batch(process_count):
  whole = batches_of().batch(5, ROWS)
  slices = [batches_of().batch(5, ROWS, own) for own in np.split(np.arange(ROWS), process_count)]
  assert_equal({name: np.concatenate([part[name] for part in slices]) for name in whole}, whole)


def test_batches_are_the_same_read_ahead_in_threads_or_one_by_one_and_from_any_start():
  one_by_one = {index: batches_of().batch(index, ROWS) for index in range(12)}
  for start in (0, 7):
    read = list(batches_of().iterate(start, 12, ROWS, num_threads=3, prefetch=5))
    assert [index for index, _ in read] == list(range(start, 12))
    for index, batch in read:
      assert_equal(batch, one_by_one[index])


def test_the_iterator_of_a_process_reads_its_slice():
  whole = batches_of().batch(2, ROWS)
  ((index, part),) = batches_of().iterate(2, 3, ROWS, range(3, 6))
  assert index == 2
  assert_equal(part, {name: array[3:] for name, array in whole.items()})


def test_an_iterator_that_starts_where_it_stops_is_empty():
  assert list(batches_of().iterate(4, 4, ROWS)) == []


def test_batches_of_one_size_and_half_of_it_walk_the_same_rows():
  batches = batches_of()
  halves = [batches.batch(index, ROWS // 2) for index in (6, 7)]
  assert_equal({name: np.concatenate([half[name] for half in halves]) for name in halves[0]}, batches.batch(3, ROWS))


def test_different_seeds_and_different_indices_give_different_batches():
  batches = batches_of(seed=0)
  assert not is_equal(batches.batch(0, ROWS), batches_of(seed=1).batch(0, ROWS))
  assert not is_equal(batches.batch(0, ROWS), batches.batch(1, ROWS))


def test_captions_vary_between_epochs_and_the_record_does_not():
  batches, texts = batches_of(Sketches(n=20), drop_text=0.0), {}
  for batch_index in range(6):
    for record, _, fields in conversations(batches, batch_index):
      answer = fields["tokens"][fields["loss_weights"] > 0][-6:-1]
      assert bytes(answer.tolist()).decode() == f"{record:05d}"
      texts.setdefault(record, set()).add(tuple(fields["tokens"]))
  assert all(len(seen) > 1 for seen in texts.values()) and len(texts) == 20


def test_the_share_of_conversations_without_text_is_what_was_asked_for():
  batches, silent, turned = batches_of(drop_text=0.25), 0, 0
  for batch_index in range(60):
    for record, _, fields in conversations(batches, batch_index):
      if record % 4 in (1, 2):  # those with one target image
        turned += 1
        silent += fields["tokens"][1] != ord("a")
  assert turned > 300 and 0.18 < silent / turned < 0.32


class Stored(Sketches):
  """The same records with their images' codes in their place, of one image: its color."""

  def record(self, index, rng):
    return [
      ImageTurn(np.full((SIZE.rows, SIZE.columns), turn.image.flat[0], np.int32), turn.is_target)
      if isinstance(turn, ImageTurn)
      else turn
      for turn in super().record(index, rng)
    ]


def test_batches_of_codes_are_the_batches_of_images_record_for_record():
  images, codes = batches_of(), Batches(Stored(), DATA, VOCABULARY, Bytes(), (SIZE,), 0, coded=True)
  for index in range(3):
    coded, batch = codes.batch(index, ROWS), images.batch(index, ROWS)
    np.testing.assert_array_equal(coded.pop("codes"), batch.pop("images")[..., :2, :2, 0])
    assert_equal(coded, batch)


def test_codes_of_another_size_are_bad_records():
  codes = Batches(Stored(), DATA, VOCABULARY, Bytes(), (dataclasses.replace(SIZE, columns=3),), 0, coded=True)
  shown = codes.batch(0, ROWS)["image_mask"]
  with_images = {record for row in codes.record_ids(0, ROWS) for record in row if record % 4}
  assert not shown.any() and codes.bad_records == with_images != set()


# ------------------------------------------------------------------------------------------- what may go wrong


def test_a_bad_record_is_an_empty_segment_and_the_others_are_unchanged():
  good = batches_of()
  bad_record = good.record_ids(0, ROWS)[2][0]
  bad = batches_of(Sketches(broken=(bad_record,)))
  assert bad.record_ids(0, ROWS) == good.record_ids(0, ROWS)
  pairs = list(zip(conversations(good, 0), conversations(bad, 0)))
  for (record, _, expected), (_, where, fields) in pairs:
    if record == bad_record:
      assert len(where) == 0 and len(fields["images"]) == 0
    else:
      assert_equal(fields, expected)
  assert bad.batch(0, ROWS)["loss_weights"].sum() < good.batch(0, ROWS)["loss_weights"].sum()
  assert bad.bad_records == {bad_record}


def test_a_bad_record_is_counted_logged_and_listed_once(caplog, tmp_path):
  bad = batches_of(Sketches(n=20, broken=(7,)))
  bad.keep_list(tmp_path / "bad_records.jsonl")
  with caplog.at_level(logging.WARNING, logger="absl"):
    for index in range(8):
      bad.batch(index, ROWS)
  assert [record.getMessage() for record in caplog.records if "left out" in record.getMessage()] == [
    "left out, record 7: OSError: file 7 is truncated"
  ]
  line = {"key": "record 7", "record": 7, "reason": "OSError: file 7 is truncated"}
  assert strict_json.read_lines(tmp_path / "bad_records.jsonl") == [line]
  assert bad.statistics(0, ROWS)["bad_records"] == pytest.approx(1 / 20, abs=0.03)
  bad.check()


def test_a_storage_that_fails_stops_the_run_soon_and_one_that_comes_back_does_not():
  source = Sketches()
  batches = batches_of(source, max_bad_records=0.1)
  index = 0
  for _ in range(3):
    batches.batch(index := index + 1, ROWS)
    batches.check()
  source.broken = range(len(source))
  with pytest.raises(
    UserError, match=r"of the last \d+ records could not be read, and data.max_bad_records=0.1"
  ) as stop:
    for _ in range(10):
      batches.batch(index := index + 1, ROWS)
      batches.check()
  assert re.search(r"record \d+: OSError: file \d+ is truncated", str(stop.value)) and "\n" not in str(stop.value)
  source.broken = ()
  while batches.statistics(index, ROWS)["bad_records"] > 0.1:
    batches.batch(index := index + 1, ROWS)
  batches.check()


def test_a_source_none_of_whose_first_records_can_be_read_fails_at_once():
  with pytest.raises(OSError, match="file 7 is truncated"):
    batches_of(Sketches(broken=tuple(range(200))))
  batches_of(Sketches(broken=(0, 1)))


def test_a_record_longer_than_its_bound_is_left_out_and_never_spills_over():
  class Liar(Sketches):
    def record(self, index, rng):
      return [TextTurn("x" * 60, is_target=True)] if index == 9 else super().record(index, rng)

  batches = batches_of(Liar(n=20))
  for index in range(4):
    batches.batch(index, ROWS)
  assert batches.bad_records == {9}


def test_rows_that_are_too_small_for_all_records_are_an_error_before_anything_is_read():
  with pytest.raises(SettingsError, match=r"data.sequence_length=20 .*record 3 may have 52 tokens.* to 52 or more"):
    batches_of(Sketches(n=4), sequence_length=20)


def test_rows_that_are_too_small_for_more_records_than_may_be_bad_are_an_error_that_says_what_would_do():
  with pytest.raises(SettingsError, match=r"images_per_row=1 .* may have 3 images, and 50 % .* 3 or more; 2 would"):
    batches_of(images_per_row=1, max_bad_records=0.25)
  with pytest.raises(SettingsError, match=r"data.images_per_row=1 .* to 3 or more$") as error:
    batches_of(images_per_row=1, max_bad_records=0.2)
  assert "\n" not in str(error.value)


def test_a_few_records_that_are_larger_than_a_row_are_left_out_and_listed(tmp_path):
  batches = batches_of(images_per_row=2, max_bad_records=0.25)
  batches.keep_list(tmp_path / "bad_records.jsonl")
  seen = {record for index in range(40) for row in batches.record_ids(index, ROWS) for record in row}
  assert seen == {record for record in range(200) if record % 4 < 3}
  lines = strict_json.read_lines(tmp_path / "bad_records.jsonl")
  assert [line["record"] for line in lines] == [record for record in range(200) if record % 4 == 3]
  assert lines[0]["reason"] == "larger than a row: 3 images, a row holds 2 (data.images_per_row)"
