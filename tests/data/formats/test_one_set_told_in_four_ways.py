"""One set of pictures, told in every way, gives the same records but for their keys."""

import dataclasses
import json

import pyarrow
import tensorflow_datasets as tfds
from pyarrow import parquet

from tests.data.formats.made import picture, read, tar, write
from tests.tfds_sets import make

SAID = {"red": ["a", "á"], "green": ["b, and more"], "blue": ['"c"']}
PICTURES = {name: picture(i) for i, name in enumerate(SAID)}


def records(rows) -> list:
  """Sorted by their pictures; what is told of them without their keys."""
  assert all(row.record for row in rows)
  return sorted((dataclasses.replace(row.record, key="") for row in rows), key=lambda record: record.images)


def test_a_folder_a_tar_a_parquet_and_a_tfds_set_give_the_same_records(tmp_path):
  rows = [{"file_name": f"{name}.png", "text": said} for name, said in SAID.items()]
  write(tmp_path / "folder", {f"{name}.png": content for name, content in PICTURES.items()})
  write(tmp_path / "folder", {"metadata.jsonl": "".join(json.dumps(row) + "\n" for row in rows)})
  members = [(f"{name}.png", content) for name, content in PICTURES.items()]
  tar(
    tmp_path / "tar/0.tar", [*members, *((f"{name}.json", json.dumps({"text": said})) for name, said in SAID.items())]
  )
  columns = [{"image": PICTURES[name], "text": said} for name, said in SAID.items()]
  (tmp_path / "parquet").mkdir()
  parquet.write_table(pyarrow.Table.from_pylist(columns), tmp_path / "parquet/0.parquet")
  features = {"image": tfds.features.Image(), "text": tfds.features.Sequence(tfds.features.Text())}
  make(tmp_path, "tfds_set", features, {"train": columns})
  expected = records(read(tmp_path / "folder"))
  assert len(expected) == 3
  for source in ("tar", "parquet", "tfds_set"):
    assert records(read(tmp_path / source)) == expected
