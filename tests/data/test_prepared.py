"""A prepared folder, opened by training: all of it, as it was made, or one line that says what is wrong."""

import dataclasses
import json
import pickle
import shutil
import threading

import numpy as np
import pytest

from omniimage.data import prepared as module
from omniimage.data.prepared import INDEX, Prepared
from omniimage.data.records import BadRecord, Text
from omniimage.data.text import TextTokenizer
from omniimage.errors import UserError
from tests.prepare import fake_format

UNITS = {
  "a": [*fake_format.rows(0, 9, split="train"), {"seed": 50, "caption": ["a", "a longer one"], "size": (5, 30)}],
  "b": [{"text": "naïve", "split": "train"}, *fake_format.rows(10, 4, split="test")],
}


class Letters:
  """A vocabulary of one letter a token."""

  fingerprint = "0123456789abcdef0123456789abcdef"

  def __init__(self):
    self.texts = 0

  def encode(self, text):
    self.texts += 1
    return list(text)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  return fake_format.prepared(tmp_path_factory.mktemp("made"), UNITS, held_out=0.0, shard_bytes=1500).path


@pytest.fixture
def path(made, tmp_path):
  """A copy to damage."""
  return shutil.copytree(made, tmp_path / "copy")


def captions(record) -> list[str]:
  return [text for turn in record.turns for part in turn.content if isinstance(part, Text) for text in part.texts]


def refused(path) -> str:
  with pytest.raises(UserError) as why:
    Prepared.open(path)
  assert "\n" not in str(why.value) and str(path) in str(why.value)
  return str(why.value)


def change(path, **values):
  told = json.loads((path / "dataset.json").read_text())
  (path / "dataset.json").write_text(json.dumps({**told, **values}))


def test_every_record_is_read_by_its_number_as_it_was_given(made):
  prepared = Prepared.open(made)
  assert {name: split.records for name, split in prepared.splits.items()} == {"train": 11, "test": 4}
  assert len(prepared.shards("train")) > 1
  train = [prepared.read("train", i) for i in range(11)]
  assert [captions(record)[0] for record in train] == [*(f"picture {i}" for i in range(9)), "a", "naïve"]
  assert [record.images[0] for record in train[:9]] == [fake_format.picture(i) for i in range(9)]
  assert train[3].key == "a.json:3"
  assert captions(prepared.read("test", np.int64(3))) == ["picture 13"]
  for outside in (-1, 11):
    with pytest.raises(IndexError):
      prepared.read("train", outside)


def test_the_index_tells_lengths_and_sizes_of_each_record(made):
  index = Prepared.open(made).index("train")
  assert index.dtype == INDEX and isinstance(index, np.memmap)
  builtin = TextTokenizer.load()
  assert index["text_tokens"][9] == len(builtin.encode("a longer one"))
  assert index["text_bytes"][9:].tolist() == [len("a longer one"), len("naïve".encode())]
  assert index["images"].tolist() == [1] * 10 + [0]
  assert index["height"][8:].tolist() == [6, 30, 0] and index["width"][8:].tolist() == [8, 5, 0]


def test_threads_share_it_and_a_worker_gets_a_copy_that_reads_the_same(made):
  prepared = Prepared.open(made)
  prepared.index("train")
  prepared.read("train", 0)
  pickled = pickle.dumps(prepared)
  assert len(pickled) < 10_000  # no index travels
  copy, found = pickle.loads(pickled), {}
  assert copy.fingerprint == prepared.fingerprint

  def read(thread):
    found[thread] = [copy.read("train", (i + thread) % 11).key for i in range(11)]

  threads = [threading.Thread(target=read, args=(i,)) for i in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert all(sorted(keys) == sorted(found[0]) for keys in found.values()) and len(found) == 8


def test_tokens_of_the_built_in_vocabulary_are_read_and_of_another_counted_once(path):
  prepared = Prepared.open(path)
  assert prepared.text_tokens("train", TextTokenizer.load()).tolist() == prepared.index("train")["text_tokens"].tolist()
  letters = Letters()
  counts = prepared.text_tokens("train", letters)
  assert counts.dtype == np.int32
  assert counts.tolist() == [9] * 9 + [12, 5]
  seen = letters.texts
  assert Prepared.open(path).text_tokens("train", letters).tolist() == counts.tolist()
  assert letters.texts == seen


def test_counts_that_are_damaged_are_made_again_and_where_none_can_be_kept_are_not(path, monkeypatch):
  Prepared.open(path).text_tokens("test", Letters())
  (kept,) = path.glob("lengths-*")
  kept.write_bytes(kept.read_bytes()[:-3])
  assert Prepared.open(path).text_tokens("test", Letters()).tolist() == [10] * 4
  kept.unlink()

  def read_only(path):
    raise PermissionError(13, "Permission denied", str(path))

  monkeypatch.setattr(module, "writing_whole", read_only)
  assert Prepared.open(path).text_tokens("test", Letters()).tolist() == [10] * 4
  assert not list(path.glob("lengths-*"))


def test_a_folder_that_is_none_or_not_finished_says_how_to_make_one(path, tmp_path):
  assert "no such folder" in refused(tmp_path / "nowhere")
  (tmp_path / "pictures").mkdir()
  assert "python -m launch.prepare" in refused(tmp_path / "pictures")
  (path / "dataset.json").rename(path / "other.json")
  (path / "parts").mkdir()
  assert "not finished; run the same launch.prepare again" in refused(path)


@pytest.mark.parametrize("number", [2, 10**30, 0, "1", None, True, 1.0])
def test_another_format_is_refused_and_not_guessed_at(path, number):
  change(path, format=number)
  assert "format" in refused(path)


@pytest.mark.parametrize(
  "text", ["", "{", "[]", "3", '{"format": 1}', '{"format": 1, "splits": {"train": {}}}', "\xff\xfe"]
)
def test_a_damaged_description_is_one_line(path, text):
  (path / "dataset.json").write_bytes(text.encode("latin-1"))
  refused(path)


def test_a_shard_that_is_missing_or_of_another_size_is_named(path):
  shard = path / Prepared.open(path).shards("train")[1].file
  content = shard.read_bytes()
  shard.write_bytes(content[:-1])
  assert shard.name in refused(path)
  shard.unlink()
  assert shard.name in refused(path)


def test_an_index_that_is_not_of_these_records_is_named(path):
  file = path / "index-test.npy"
  index = np.load(file)
  np.save(file, index[:-1])
  assert "index-test.npy" in refused(path)
  np.save(file, index["images"])
  assert "index-test.npy" in refused(path)
  file.write_bytes(b"")
  assert "index-test.npy" in refused(path)
  file.unlink()
  assert "index-test.npy" in refused(path)


def test_a_byte_that_changed_is_found_by_the_checksum(path):
  prepared = Prepared.open(path)
  prepared.verify()
  shard = path / prepared.shards("test")[0].file
  content = bytearray(shard.read_bytes())
  content[len(content) // 2] ^= 1
  shard.write_bytes(content)
  with pytest.raises(UserError, match=shard.name):
    Prepared.open(path).verify()


def test_a_record_that_cannot_be_read_is_a_bad_record_and_the_others_are_read(path):
  shard = path / Prepared.open(path).shards("test")[0].file
  content = shard.read_bytes()
  picture = fake_format.picture(11)
  place = content.index(picture[60:100])
  shard.write_bytes(content[:place] + b"\0" * 40 + content[place + 40 :])
  prepared = Prepared.open(path)
  with pytest.raises(BadRecord):
    prepared.read("test", 1)
  assert captions(prepared.read("test", 2)) == ["picture 12"]


def test_the_fingerprint_is_of_the_records(made, path, tmp_path):
  assert Prepared.open(path).fingerprint == Prepared.open(made).fingerprint
  others = {**UNITS, "b": UNITS["b"][:-1]}
  other = fake_format.prepared(tmp_path, others, held_out=0.0, shard_bytes=1500)
  assert other.fingerprint != Prepared.open(made).fingerprint


def test_a_split_that_it_lacks_is_named_with_those_it_has(made):
  with pytest.raises(UserError, match="train, test"):
    Prepared.open(made).index("validation")


def test_a_million_records_are_opened_at_once(path):
  """Were anything read for each record, this would take seconds."""
  prepared = Prepared.open(path)
  records = 10**6
  np.save(path / "index-train.npy", np.zeros(records, INDEX))
  told = json.loads((path / "dataset.json").read_text())
  shards = [dataclasses.asdict(shard) for shard in prepared.shards("train")]
  shards[0]["records"] += records - 11
  told["splits"]["train"].update(records=records, shards=shards)
  (path / "dataset.json").write_text(json.dumps(told))
  opened = Prepared.open(path)
  assert len(opened.text_tokens("train", TextTokenizer.load())) == records
  assert opened.read("train", 0).key == "a.json:0"
