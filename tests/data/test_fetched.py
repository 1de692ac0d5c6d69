"""A prepared data set in a bucket is read from a copy on this machine, which is whole or not there."""

import dataclasses

import numpy as np
import pytest

from omniimage.data.fetched import on_this_machine
from omniimage.data.prepared import Prepared
from omniimage.data.records import captioned
from omniimage.data.sources import open_source
from omniimage.data.sources.records import RecordsSettings
from omniimage.errors import UserError
from omniimage.size import Size
from omniimage.vocabulary import Vocabulary
from tests import small, stored_records
from tests.stored_records import picture

RECORDS = [captioned(f"{i}.png", [f"number {i}"], picture((i, 0, 0))) for i in range(9)]


@pytest.fixture
def there(bucket, tmp_path, monkeypatch):
  """A data set in the bucket, and the one on disk that it is a copy of."""
  monkeypatch.setenv("OMNIIMAGE_CACHE", str(tmp_path / "cache"))
  prepared = stored_records.write(tmp_path / "set", {"train": RECORDS[:8], "test": RECORDS[8:]}, shard_records=4)
  for file in prepared.path.iterdir():
    bucket.objects[f"sets/mine/{file.name}"] = file.read_bytes()
  return prepared


def test_a_data_set_in_a_bucket_has_the_records_of_the_one_on_disk(there):
  copy = Prepared.open(on_this_machine("gs://bucket/sets/mine"))
  assert copy.fingerprint == there.fingerprint
  assert [copy.read("train", i) for i in range(8)] == RECORDS[:8]


@pytest.mark.parametrize("path", ["gs://bucket/sets/mine", "gs://bucket/sets/mine:0.5,gs://bucket/sets/mine:0.5"])
def test_it_is_a_source_of_training_alone_and_in_a_mixture(there, path):
  data, text = small.settings().data, small.text_tokenizer()
  settings = RecordsSettings("records", ("{}",), "crop", (255, 255, 255), path)
  source = open_source(
    dataclasses.replace(data, source=settings), "train", (Size(2, 2, 8),), text, Vocabulary(text.size, image_codes=10)
  )
  assert len(source) == 8 * (1 + path.count(",")) and source.record(0, np.random.default_rng(0))


def test_it_is_copied_once(there, bucket, capsys):
  first = on_this_machine("gs://bucket/sets/mine")
  for name in list(bucket.objects):
    if name.endswith((".npy", "array_record")):
      del bucket.objects[name]
  assert on_this_machine("gs://bucket/sets/mine") == first
  assert capsys.readouterr().err.count(", once\n") == 1


def test_a_copy_that_was_cut_short_goes_on(there, bucket):
  name = next(name for name in bucket.objects if name.endswith("array_record"))
  whole = bucket.objects[name]
  del bucket.objects[name]
  with pytest.raises(UserError, match=f"gs://bucket/{name} cannot be read: there is no such"):
    on_this_machine("gs://bucket/sets/mine")
  bucket.objects[name] = whole
  Prepared.open(on_this_machine("gs://bucket/sets/mine")).verify()


def test_another_data_set_in_its_place_is_another_copy(there, bucket, tmp_path):
  first = on_this_machine("gs://bucket/sets/mine")
  other = stored_records.write(tmp_path / "other", {"train": RECORDS[:4]})
  for file in other.path.iterdir():
    bucket.objects[f"sets/mine/{file.name}"] = file.read_bytes()
  second = on_this_machine("gs://bucket/sets/mine")
  assert second != first and Prepared.open(second).fingerprint == other.fingerprint
  assert Prepared.open(first).fingerprint == there.fingerprint


def test_what_was_changed_in_the_bucket_is_told_and_not_kept(there, bucket):
  name = next(name for name in bucket.objects if name.endswith("array_record"))
  bucket.objects[name] = bucket.objects[name][:-1] + b"?"
  with pytest.raises(UserError, match=f"gs://bucket/{name} is damaged: its checksum differs"):
    on_this_machine("gs://bucket/sets/mine")


def test_what_is_no_data_set_is_told_in_one_line(bucket):
  with pytest.raises(UserError, match=r"gs://bucket/none is no prepared data set .*: there is no such") as why:
    on_this_machine("gs://bucket/none")
  assert "\n" not in str(why.value)
  bucket.objects["bad/dataset.json"] = b"{}"
  with pytest.raises(UserError, match=r"dataset\.json is damaged"):
    on_this_machine("gs://bucket/bad")
