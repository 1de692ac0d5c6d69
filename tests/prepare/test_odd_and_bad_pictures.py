"""A folder as people have it, of a thousand pictures, odd ones and bad ones among them: prepared, then trained on."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from omniimage.data.batches import Batches
from omniimage.data.conversation import ImageTurn
from omniimage.data.records import captioned
from omniimage.data.sources import open_source
from omniimage.data.sources.records import RecordsSettings
from omniimage.errors import UserError
from omniimage.prepare.prepare import Request, prepare
from omniimage.settings import DataSettings
from omniimage.size import Size
from omniimage.vocabulary import Vocabulary
from tests import odd_pictures, small, stored_records
from tests.odd_pictures import BLUE, GRAY, GREEN, RED, WHITE

PICTURES = 1000
SIZE = Size(2, 3, 16)  # 32×48, the proportions of the odd ones
BAD_ROWS = {  # by the name that the list gives: its line there, and what the reason says
  "silent.png": (b'{"file_name": "silent.png"}', "no caption"),
  "empty.png": (b'{"file_name": "empty.png", "text": "  "}', "no caption"),
  "null.png": (b'{"file_name": "null.png", "text": null}', "no caption"),
  "../outside.png": (b'{"file_name": "../outside.png", "text": "a secret"}', "outside"),
  "gone.png": (b'{"file_name": "gone.png", "text": "a picture that is not there"}', "there is no file"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
  root = tmp_path_factory.mktemp("own") / "pictures"
  root.mkdir()
  lines = [line for line, _ in BAD_ROWS.values()]
  files = {name: content for name, (content, _) in odd_pictures.bad().items()} | dict(odd_pictures.odd())
  usual = [f"{i:04d}.png" for i in range(PICTURES - len(files) - len(BAD_ROWS))]
  rng = np.random.default_rng(0)
  files |= {name: odd_pictures.encoded(rng.integers(0, 256, (4, 6, 3), np.uint8), "PNG") for name in usual}
  for name, content in files.items():
    (root / name).write_bytes(content)
    lines.append(json.dumps({"file_name": name, "text": f"this is {name}"}).encode())
  for name in ("silent.png", "empty.png", "null.png", "../outside.png"):
    (root / name).write_bytes(odd_pictures.encoded(rng.integers(0, 256, (4, 6, 3), np.uint8), "PNG"))
  rng.shuffle(lines)
  (root / "metadata.jsonl").write_bytes(b"\n".join(lines))
  return root


@pytest.fixture(scope="module")
def prepared(folder):
  return prepare(Request(str(folder), folder.parent / "prepared", held_out=0.1, workers=2), say=lambda line: None)


def opened(path: Path, split: str = "train", **changes):
  """(its source, settings of the data that have it)."""
  source = RecordsSettings("records", ("{}",), "crop", WHITE, str(path))
  data = dataclasses.replace(
    small.settings().data, source=source, sequence_length=64, images_per_row=2, drop_text=0.0, **changes
  )
  text_tokenizer = small.text_tokenizer()
  return open_source(data, split, (SIZE,), text_tokenizer, Vocabulary(text_tokenizer.size, image_codes=10)), data


def batches_of(source, data: DataSettings) -> Batches:
  text_tokenizer = small.text_tokenizer()
  return Batches(source, data, Vocabulary(text_tokenizer.size, image_codes=10), text_tokenizer, (SIZE,), seed=0)


def test_exactly_the_bad_ones_are_listed_each_with_its_reason(folder, prepared):
  rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
  lines = [json.loads(line) for line in (prepared.path / "dropped.jsonl").read_text().splitlines()]
  expected = {name: reason for name, (_, reason) in (*odd_pictures.bad().items(), *BAD_ROWS.items())}
  names = {f"metadata.jsonl:{number}": row["file_name"] for number, row in enumerate(rows, start=1)}
  listed = {names.get(line["key"], line["key"]): line["reason"] for line in lines}
  assert len(expected) == 30 and len(lines) == 30
  assert set(listed) == set(expected)
  assert {name: reason for name, reason in listed.items() if expected[name] not in reason} == {}
  assert sum(split.records for split in prepared.splits.values()) == PICTURES - 30


def test_every_odd_one_comes_out_as_a_person_expects_to_see_it(prepared):
  seen = {}
  for split in prepared.splits:
    source, _ = opened(prepared.path, split)
    for i in range(len(source)):
      text, picture = source.record(i, np.random.default_rng(0))
      assert isinstance(picture, ImageTurn) and picture.image.shape == (*SIZE.pixels, 3)
      seen[text.text.removeprefix("this is ")] = picture.image
  assert len(seen) == PICTURES - 30
  for name in odd_pictures.odd():
    found = odd_pictures.corners(seen[name])
    assert np.abs(np.subtract(found, (RED, GREEN, BLUE, GRAY))).max() <= 12, (name, found)


def test_what_is_prepared_trains_without_a_bad_record(prepared):
  source, data = opened(prepared.path)
  batches = batches_of(source, data)
  shown = sum(int(batches.batch(i, rows=32)["image_mask"].sum()) for i in range(8))
  assert shown > 300 and not batches.bad_records


@pytest.fixture(scope="module")
def rotten(tmp_path_factory):
  """A prepared folder whose pictures have gone bad since; and which."""
  good = [odd_pictures.encoded(np.full((4, 6, 3), i, np.uint8), "PNG") for i in range(200)]
  spoilt = {7 * i: content for i, (content, _) in enumerate(odd_pictures.bad().values())}
  records = [captioned(f"{i}.png", [f"number {i}"], spoilt.get(i, image)) for i, image in enumerate(good)]
  path = tmp_path_factory.mktemp("rotten") / "set"
  stored_records.write(path, {"train": records}, shard_records=50)
  return path, set(spoilt)


@pytest.mark.parametrize("workers", [0, 1])
def test_training_goes_on_over_rotten_records_and_lists_exactly_those(rotten, tmp_path, workers):
  if not flags.FLAGS.is_parsed():  # Grain's processes ask them
    flags.FLAGS.mark_as_parsed()
  path, spoilt = rotten
  source, data = opened(path, workers=workers, packing_rows=32, max_bad_records=0.5)
  batches = batches_of(source, data)
  batches.keep_list(tmp_path / "bad_records.jsonl")
  shown = set()
  for _, batch in batches.iterate(0, 16, rows=16):
    shown |= set(batch["images"][batch["image_mask"]][:, 16, 24, 0].tolist())
  batches.check()
  assert shown == set(range(200)) - spoilt and batches.bad_records == spoilt
  listed = [json.loads(line) for line in (tmp_path / "bad_records.jsonl").read_text().splitlines()]
  reasons = [reason for _, reason in odd_pictures.bad().values()]
  assert sorted(line["key"] for line in listed) == sorted(f"{i}.png" for i in spoilt)
  for line in listed:
    assert reasons[int(line["key"].removesuffix(".png")) // 7] in line["reason"]


def test_too_many_rotten_records_end_the_run_with_the_reason_of_one(rotten):
  path, _ = rotten
  source, data = opened(path, packing_rows=32, max_bad_records=0.05)
  batches = batches_of(source, data)
  for i in range(4):
    batches.batch(i, rows=16)
  with pytest.raises(UserError, match=r"1\d% of the last .*data.max_bad_records=0.05.*BadImage") as stopped:
    batches.check()
  assert "\n" not in str(stopped.value)
