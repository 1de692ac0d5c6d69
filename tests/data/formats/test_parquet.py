import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from omniimage.data.formats import open_format
from omniimage.data.formats.format import Given
from omniimage.errors import UserError
from tests.data.formats.made import captions, picture, problems, read, write


def table(path, rows, schema=None, **options) -> str:
  path.parent.mkdir(parents=True, exist_ok=True)
  parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), path, **options)
  return str(path)


def test_rows_that_img2dataset_could_not_get_are_left_out_with_its_reason(tmp_path):
  rows = [
    {"url": "u", "caption": "a cat", "key": "0", "status": "success", "error_message": None, "jpg": picture(1)},
    {"url": "u", "caption": "b", "key": "1", "status": "failed_to_download", "error_message": "HTTP 404", "jpg": None},
    {"url": "u", "caption": "c", "key": "2", "status": "success", "error_message": None, "jpg": b""},
    {"url": "u", "caption": None, "key": "3", "status": "success", "error_message": None, "jpg": picture(2)},
  ]
  found = read(table(tmp_path / "00000.parquet", rows))
  assert captions(found) == {"00000.parquet:0": ("a cat",)}
  assert problems(found) == {
    "00000.parquet:1": "status is failed_to_download: HTTP 404",
    "00000.parquet:2": "no picture: jpg is empty",
    "00000.parquet:3": "no caption: caption says nothing",
  }


@pytest.mark.parametrize("column", ["image", "img", "png", "webp", "jpg"])
@pytest.mark.parametrize("kind", ["bytes", "struct", "path"])
def test_pictures_as_bytes_structs_or_paths_are_the_same(tmp_path, column, kind):
  value = {
    "bytes": picture(),
    "struct": {"bytes": picture(), "path": "x.png"},
    "path": {"bytes": None, "path": "x.png"},
  }[kind]
  write(tmp_path / "data", {"x.png": picture()})
  schema = None
  if kind == "path":
    struct = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema([(column, struct), ("text", pyarrow.string())])
  table(tmp_path / "data/a.parquet", [{column: value, "text": "a"}], schema)
  found = read(tmp_path, "parquet")
  assert captions(found) == {"data/a.parquet:0": ("a",)} and found[0].record.images == (picture(),)


@pytest.mark.parametrize("value", [["a cat", " a tabby "], json.dumps(["a cat", "a tabby", ""])])
def test_alternatives_are_a_list_or_its_json(tmp_path, value):
  path = table(tmp_path / "a.parquet", [{"image": picture(), "caption": value}])
  assert captions(read(path)) == {"a.parquet:0": ("a cat", "a tabby")}


def test_numbers_that_hugging_face_has_names_for_are_these_names(tmp_path):
  features = {"label": {"names": ["airplane", "car"], "_type": "ClassLabel"}}
  made = pyarrow.table({"img": [picture(1), picture(2)], "label": [1, 7]})
  made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
  parquet.write_table(made, tmp_path / "a.parquet")
  found = read(tmp_path, caption_columns=["label"])
  assert captions(found) == {"a.parquet:0": ("car",), "a.parquet:1": ("7",)}


def test_a_wrong_column_is_named_with_those_that_there_are(tmp_path):
  path = table(tmp_path / "a.parquet", [{"picture": picture(), "said": "a"}])
  with pytest.raises(UserError, match=r"no 'file_name' for the picture.*it has picture, said"):
    read(path, "parquet")
  with pytest.raises(UserError, match=r"no 'text' for a caption.*picture, said"):
    read(path, image_column="picture")
  assert captions(read(path, image_column="picture", caption_columns=["said"])) == {"a.parquet:0": ("a",)}


def test_names_in_a_table_cannot_lead_outside(tmp_path):
  write(tmp_path, {"out.png": picture()})
  rows = [{"image": name, "text": "a"} for name in ("../out.png", "/etc/passwd", "none.png")]
  table(tmp_path / "set/a.parquet", rows)
  told = list(problems(open_rows(tmp_path / "set")).values())
  assert "outside" in told[0] and "outside" in told[1] and "no file" in told[2]


def open_rows(source):
  _, opened = open_format(str(source), "parquet", Given())
  return [row for unit in opened.units() for row in opened.rows(unit)]


def test_units_are_row_groups_and_few_rows_are_in_memory(tmp_path, monkeypatch):
  monkeypatch.setattr("omniimage.data.formats.tables.BATCH_ROWS", 3)
  rows = [{"image": picture(i), "text": f"number {i}"} for i in range(25)]
  path = table(tmp_path / "a.parquet", rows, row_group_size=10)
  _, opened = open_format(path, None, Given())
  assert [unit.rows for unit in opened.units()] == [10, 10, 5]
  found = open_rows(path)
  assert list(captions(found).values()) == [(f"number {i}",) for i in range(25)]
  assert [row.key for row in found] == [f"a.parquet:{i}" for i in range(25)]


def test_a_damaged_file_is_a_row_and_only_damaged_ones_are_an_error(tmp_path):
  whole = table(tmp_path / "whole.parquet", [{"image": picture(), "text": "a"}])
  content = Path(whole).read_bytes()
  write(tmp_path, {"cut.parquet": content[: len(content) // 2], "empty.parquet": b""})
  found = read(tmp_path)
  assert len(captions(found)) == 1 and set(problems(found)) == {"cut.parquet", "empty.parquet"}
  (tmp_path / "whole.parquet").unlink()
  with pytest.raises(UserError, match=r"no Parquet file can be read.*cut.parquet"):
    read(tmp_path, "parquet")


def test_damaged_pages_end_a_row_group_with_a_reason(tmp_path):
  rows = [{"image": picture(i) * 20, "text": f"number {i}"} for i in range(40)]
  path = table(tmp_path / "a.parquet", rows, row_group_size=20, compression="zstd", use_dictionary=False)
  content = bytearray(Path(path).read_bytes())
  content[4:40] = b"\xff" * 36
  write(tmp_path, {"a.parquet": bytes(content)})
  found = open_rows(tmp_path)
  assert [key for key, why in problems(found).items() if "truncated" in why] == ["a.parquet:0"]
  assert len(captions(found)) == 20


def test_text_that_is_no_utf_8_is_a_row_with_a_reason(tmp_path):
  array = pyarrow.array([b"caf\xe9", b"fine"], pyarrow.binary())
  text = pyarrow.StringArray.from_buffers(2, *array.buffers()[1:], array.buffers()[0])
  parquet.write_table(pyarrow.table({"image": [picture(), picture(1)], "text": text}), tmp_path / "a.parquet")
  found = read(tmp_path)
  assert list(captions(found)) == ["a.parquet:1"] and list(problems(found)) == ["a.parquet:0"]


def test_hub_data_sets_are_split_as_their_files_are_named(tmp_path):
  table(tmp_path / "data/train-00000-of-00001.parquet", [{"image": picture(1), "text": "a"}])
  assert [row.split for row in read(tmp_path)] == [None]
  table(tmp_path / "data/validation-00000-of-00001.parquet", [{"image": picture(2), "text": "a"}])
  assert [row.split for row in read(tmp_path)] == ["train", "test"]


def test_a_column_may_say_the_split(tmp_path):
  rows = [{"image": picture(i), "text": "a", "set": name} for i, name in enumerate(("train", "Val", "restval"))]
  found = read(table(tmp_path / "a.parquet", rows), split_column="set")
  assert [row.split for row in found] == ["train", "test", None] and "'restval'" in problems(found)["a.parquet:2"]


def test_columns_that_nobody_asked_for_are_not_read(tmp_path):
  rows = [{"image": picture(), "text": "a", "embedding": [0.5] * 8, "style": "flat"}]
  path = table(tmp_path / "a.parquet", rows)
  _, opened = open_format(path, None, Given(caption_columns=["{text} in {style}"]))
  (file,) = opened._files
  ((_, fields),) = file.table.rows(file.table.spans()[0])
  assert set(fields) == {"image", "text", "style"}
