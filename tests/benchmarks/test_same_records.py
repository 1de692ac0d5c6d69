"""A folder, a tar, a Parquet and a TFDS data set of the same pictures are the same records and batches."""

import dataclasses

import pytest
from PIL import Image

from omniimage.data import emoji
from omniimage.prepare.prepare import Request, prepare
from tests.benchmarks.without_flags import load

same_records = load("same_records")

PICTURES = 12


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  source, out = tmp_path_factory.mktemp("pictures"), tmp_path_factory.mktemp("made") / "prepared"
  shipped = emoji.load()
  for i in range(PICTURES):
    name = f"{i:02d}{('.png', '.webp', '.jpg')[i % 3]}"
    Image.fromarray(shipped.images[i]).save(source / name)
    (source / f"{i:02d}.txt").write_text(shipped.concepts[i].label)
  prepare(Request(str(source), out, held_out=0.3), say=lambda line: None)
  return out


def test_every_form_of_the_same_pictures_is_the_same_records_and_batches(prepared, tmp_path):
  same = same_records.compare(prepared, tmp_path, batches=2)
  assert same == {"webdataset": (PICTURES, 2), "parquet": (PICTURES, 2), "tfds": (PICTURES, 2)}


def test_another_caption_is_noticed(prepared, tmp_path, monkeypatch):
  def write(splits, folder):
    turns = splits["train"][0].turns
    splits = {**splits, "train": [dataclasses.replace(r, turns=turns) for r in splits["train"]]}
    same_records.write_parquet(splits, folder)

  monkeypatch.setattr(same_records, "FORMS", {"parquet": write})
  with pytest.raises(ValueError, match="parquet: the records of train are others"):
    same_records.compare(prepared, tmp_path, batches=1)
