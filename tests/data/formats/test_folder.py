import json
import os
import pickle

import pytest

from omniimage.data.formats import open_format
from omniimage.data.formats.format import Given
from omniimage.errors import UserError
from tests.data.formats.made import captions, picture, problems, read, rows_of, write

TWO = {"a.png": picture(1), "b.PNG": picture(2)}


def lines(*rows) -> str:
  return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_list_of_any_kind_gives_the_same_records(tmp_path, kind):
  rows = [{"file_name": "a.png", "text": "a cat"}, {"file_name": "b.PNG", "text": "a dog, running"}]
  write(tmp_path, TWO)
  if kind == "jsonl":
    write(tmp_path, {"metadata.jsonl": lines(*rows)})
  elif kind == "csv":
    write(tmp_path, {"metadata.csv": 'file_name,text\na.png,a cat\nb.PNG,"a dog, running"\n'})
  else:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "metadata.parquet")
  found = read(tmp_path)
  assert captions(found) == {"a.png": ("a cat",), "b.PNG": ("a dog, running",)}
  assert [row.record.images for row in found] == [(picture(1),), (picture(2),)]


def test_lists_in_sub_folders_name_the_files_beside_them_and_folders_are_splits(tmp_path):
  for folder, red in (("train", 1), ("validation", 2)):
    write(tmp_path / folder, {"x.png": picture(red), "metadata.jsonl": lines({"file_name": "x.png", "text": folder})})
  rows = read(tmp_path)
  assert captions(rows) == {"train/x.png": ("train",), "validation/x.png": ("validation",)}
  assert [row.split for row in rows] == ["train", "test"]


def test_where_all_is_train_something_can_still_be_held_out(tmp_path):
  write(tmp_path / "train", {"x.png": picture(), "metadata.jsonl": lines({"file_name": "x.png", "text": "x"})})
  assert [row.split for row in read(tmp_path)] == [None]


def test_a_wrong_column_is_named_with_those_that_there_are(tmp_path):
  write(tmp_path, {**TWO, "metadata.jsonl": lines({"file_name": "a.png", "label": "a cat"})})
  with pytest.raises(UserError, match=r"no 'text'.*it has file_name, label.*--caption_column"):
    read(tmp_path)
  with pytest.raises(UserError, match=r"no 'capton'.*file_name, label"):
    read(tmp_path, caption_columns=["label", "capton"])
  with pytest.raises(UserError, match=r"no 'colour'"):
    read(tmp_path, caption_columns=["a {colour} {label}"])
  with pytest.raises(UserError, match=r"no 'picture'.*--image_column"):
    read(tmp_path, metadata="metadata.jsonl", image_column="picture")
  with pytest.raises(UserError, match=r"no 'set'.*--split_column"):
    read(tmp_path, caption_columns=["label"], split_column="set")
  with pytest.raises(UserError, match=r"label of metadata.jsonl names no picture"):
    read(tmp_path, image_column="label", caption_columns=["label"])


def test_one_list_of_another_name_is_taken_and_told(tmp_path):
  write(tmp_path, {**TWO, "captions.jsonl": lines({"file": "a.png", "label": "cat", "style": "flat", "set": "val"})})
  given = Given(caption_columns=["{label} in {style} style"], split_column="set")
  name, opened = open_format(str(tmp_path), None, given)
  assert name == "folder" and "file" in opened.found() and "captions.jsonl" in opened.found()
  assert [row.split for row in rows_of(opened)] == ["test"]
  assert captions(rows_of(opened)) == {"a.png": ("cat in flat style",)}
  write(tmp_path, {"more.csv": "file,label\nb.PNG,dog\n"})
  with pytest.raises(UserError, match=r"several lists.*--metadata"):
    read(tmp_path, caption_columns=["label"])
  assert captions(read(tmp_path, caption_columns=["label"], metadata="more.csv")) == {"b.PNG": ("dog",)}


def test_a_list_may_lie_elsewhere_and_name_files_of_the_source(tmp_path):
  write(tmp_path / "images", {"in/a.png": picture()})
  write(tmp_path, {"lists/all.csv": "file_name;text\r\nin/a.png;a cat\r\n"})
  found = read(tmp_path / "images", metadata="../lists/all.csv")
  assert captions(found) == {"in/a.png": ("a cat",)}


def test_every_bad_row_has_its_place_and_reason(tmp_path):
  write(tmp_path, {**TWO, "empty.png": b"", "folder/x.txt": "x"})
  rows = [
    {"file_name": "a.png", "text": "fine"},
    {"file_name": "c.png", "text": "typo"},
    {"file_name": "b.PNG", "text": "  "},
    {"file_name": "b.PNG"},
    {"file_name": "b.PNG", "text": "half \ud83d"},
    {"file_name": "b.PNG", "text": {"en": "a"}},
    {"file_name": "empty.png", "text": "empty"},
    {"file_name": "folder", "text": "folder"},
    {"file_name": None, "text": "none"},
    {"file_name": "http://example.org/a.png", "text": "far"},
    {"file_name": "n" * 5000, "text": "long"},
    {"file_name": "a\0.png", "text": "zero"},
  ]
  text = lines(*rows) + "\nno json\n[1]\n" + '{"file_name": "b.PNG", "text": "'
  write(tmp_path, {"metadata.jsonl": text.encode() + b'\xff"}\n'})
  found = read(tmp_path)
  assert captions(found) == {"a.png": ("fine",)}
  expected = {
    2: "there is no file c.png", 3: "no caption: text says nothing", 4: "no caption", 5: "not UTF-8", 6: "a dict",
    7: "empty.png is empty", 8: "folder is no file", 9: "names no file", 10: "is an address", 11: "names no file",
    12: "names no file", 14: "no JSON", 15: "no JSON object", 16: "text is not UTF-8",
  }  # fmt: skip
  told = problems(found)
  assert list(told) == [f"metadata.jsonl:{line}" for line in expected]
  for line, reason in expected.items():
    assert reason in told[f"metadata.jsonl:{line}"]


@pytest.mark.parametrize(
  "name",
  ["/etc/passwd", "../outside.png", "in/../../outside.png", "..\\outside.png", "C:\\a.png", "link.png", "far/x.png"],
)
def test_no_row_reads_outside_its_data_set(tmp_path, name):
  write(tmp_path, {"outside.png": picture(9), "elsewhere/x.png": picture(9)})
  root = tmp_path / "set"
  write(
    root,
    {
      "a.png": picture(),
      "metadata.jsonl": lines({"file_name": "a.png", "text": "a"}, {"file_name": name, "text": "b"}),
    },
  )
  (root / "in").mkdir()
  (root / "link.png").symlink_to(tmp_path / "outside.png")
  (root / "far").symlink_to(tmp_path / "elsewhere")
  assert "outside the data set" in problems(read(root))["metadata.jsonl:2"]


def test_a_source_that_is_a_link_is_read_and_so_are_links_inside_it(tmp_path):
  root = tmp_path / "set"
  write(root, {"a.png": picture(), "metadata.jsonl": lines({"file_name": "b.png", "text": "b"})})
  (root / "b.png").symlink_to("a.png")
  (tmp_path / "link").symlink_to(root)
  assert captions(read(tmp_path / "link")) == {"b.png": ("b",)}


def test_csv_rows_that_a_comma_or_quote_has_broken_do_not_swallow_the_next(tmp_path):
  write(tmp_path, TWO)
  text = (
    '\ufefffile_name,text\na.png,a cat, sitting\nb.PNG,"two\nlines"\nb.PNG,"he said "yes""\nb.PNG,last\na.png,"open\n'
  )
  write(tmp_path, {"metadata.csv": text})
  found = read(tmp_path)
  assert [row.record.turns[0].content[0].texts[0] for row in found if row.record] == ["two\nlines", "last"]
  assert list(problems(found)) == ["metadata.csv:2", "metadata.csv:5", "metadata.csv:7"]
  assert "in quotes" in problems(found)["metadata.csv:2"]


def test_utf_16_and_json_lists_are_refused_with_what_to_do(tmp_path):
  write(tmp_path, {**TWO, "metadata.csv": "file_name,text\na.png,a\n".encode("utf-16")})
  with pytest.raises(UserError, match=r"save it as UTF-8"):
    read(tmp_path)
  (tmp_path / "metadata.csv").unlink()
  write(tmp_path, {"metadata.jsonl": json.dumps([{"file_name": "a.png", "text": "a"}])})
  with pytest.raises(UserError, match=r"jq -c"):
    read(tmp_path)


def test_texts_beside_pictures_are_whole_captions(tmp_path):
  write(tmp_path, {**TWO, "a.txt": "\ufeffa cat\nsitting\n", "b.TXT": "a dog", "c.jpg": picture(3), "d.txt": "typo"})
  write(tmp_path, {"e.png": picture(4), "e.txt": "", "f.png": picture(5), "f.txt": b"caf\xe9", "sub/a.png": picture(6)})
  found = read(tmp_path)
  assert captions(found) == {"a.png": ("a cat\nsitting",), "b.PNG": ("a dog",)}
  told = problems(found)
  assert list(told) == ["c.jpg", "d.txt", "e.png", "f.png", "sub/a.png"]
  assert "no c.txt beside it" in told["c.jpg"] and "no picture" in told["d.txt"] and "no caption" in told["e.png"]
  assert "not UTF-8" in told["f.png"]


def test_folders_are_classes_below_the_splits(tmp_path):
  for split in ("train", "val"):
    write(
      tmp_path / "data" / split, {"long_haired_dogs/1.jpg": picture(1, "JPEG"), "cats/deep/1.webp": picture(2, "WEBP")}
    )
  found = read(tmp_path, caption_columns=["a photo of {label}"])
  assert captions(found)["data/train/long_haired_dogs/1.jpg"] == ("a photo of long haired dogs",)
  assert captions(found)["data/val/cats/deep/1.webp"] == ("a photo of deep",)
  assert [row.split for row in found] == ["train", "train", "test", "test"]


def test_a_class_may_be_called_train(tmp_path):
  write(tmp_path, {"train/1.png": picture(1), "car/1.png": picture(2), "loose.png": picture(3)})
  found = read(tmp_path)
  assert captions(found) == {"car/1.png": ("car",), "train/1.png": ("train",)}
  assert all(row.split is None for row in found) and "no caption" in problems(found)["loose.png"]


@pytest.mark.parametrize("folder", ["", "images/", "train/"])
def test_pictures_without_any_caption_stop_at_once(tmp_path, folder):
  write(tmp_path, {f"{folder}{i}.png": picture(i) for i in range(3)})
  with pytest.raises(UserError, match=r"no caption: .*3 pictures.*metadata.jsonl"):
    read(tmp_path)


def test_captions_that_are_all_blank_stop_at_once(tmp_path):
  write(tmp_path, {**TWO, "metadata.csv": "file_name,text\na.png,\nb.PNG, \n"})
  with pytest.raises(UserError, match=r"metadata.csv:2: no caption: text says nothing"):
    read(tmp_path)


def test_odd_names_come_through_and_hidden_files_do_not(tmp_path):
  odd = ["a b.png", "100%.png", "#1.png", "猫.png", "é.png", "new\nline.png", "'quote\".png", "a,b.png"]
  root = os.fsencode(tmp_path)
  names = [*map(os.fsencode, odd), b"latin\xe9.png"]
  for i, name in enumerate(names):
    with open(os.path.join(root, name), "wb") as file:
      file.write(picture(i))
    with open(os.path.join(root, name[:-4] + b".txt"), "w") as file:
      file.write(f"caption {i}")
  write(
    tmp_path,
    {".hidden.png": picture(), "._a b.png": b"x", ".git/x.png": picture(), "__MACOSX/x.png": b"x", "Thumbs.db": b""},
  )
  found = read(tmp_path)
  assert not problems(found)
  assert sorted(captions(found).values()) == sorted((f"caption {i}",) for i in range(len(names)))


def test_names_in_a_list_may_be_bytes_of_any_encoding(tmp_path):
  with open(os.path.join(os.fsencode(tmp_path), b"caf\xe9.png"), "wb") as file:
    file.write(picture())
  write(tmp_path, {"metadata.csv": b"file_name,text\ncaf\xe9.png,coffee\n"})
  assert list(captions(read(tmp_path)).values()) == [("coffee",)]


def test_a_long_list_is_many_units_of_the_same_rows_in_order(tmp_path, monkeypatch):
  monkeypatch.setattr("omniimage.data.formats.tables.UNIT_ROWS", 7)
  write(tmp_path, TWO)
  rows = [{"file_name": "a.png", "text": f"number {i}"} for i in range(20)]
  write(tmp_path, {"metadata.jsonl": "\n\n".join(json.dumps(row) for row in rows)})
  _, opened = open_format(str(tmp_path), None, Given())
  units = opened.units()
  assert [unit.rows for unit in units] == [7, 7, 6] and len({unit.name for unit in units}) == 3
  found = [row for unit in units for row in opened.rows(unit)]
  assert [row.record.turns[0].content[0].texts[0] for row in found] == [f"number {i}" for i in range(20)]
  copy = pickle.loads(pickle.dumps(opened))
  assert [row.key for row in copy.rows(pickle.loads(pickle.dumps(units[1])))] == [row.key for row in found[7:14]]


def test_the_fingerprint_tells_a_changed_file_and_an_added_one(tmp_path):
  write(tmp_path, {**TWO, "a.txt": "a", "b.txt": "b"})

  def fingerprint() -> str:
    return open_format(str(tmp_path), None, Given())[1].fingerprint()

  first = fingerprint()
  assert first == fingerprint()
  write(tmp_path, {"a.txt": "another"})
  second = fingerprint()
  write(tmp_path, {"c.png": picture()})
  assert len({first, second, fingerprint()}) == 3


def test_a_linked_folder_that_leads_outside_is_told_of(tmp_path):
  write(tmp_path / "elsewhere", {"x.png": picture()})
  write(tmp_path / "set", {**TWO, "a.txt": "a"})
  (tmp_path / "set/more").symlink_to(tmp_path / "elsewhere")
  assert "outside the data set" in problems(read(tmp_path / "set"))["more"]


def test_two_lists_of_one_folder_are_asked_about(tmp_path):
  rows = {"metadata.csv": "file_name,text\na.png,a\n", "metadata.jsonl": lines({"file_name": "a.png", "text": "b"})}
  write(tmp_path, {**TWO, **rows})
  with pytest.raises(UserError, match=r"two lists: metadata.csv, metadata.jsonl; .*--metadata"):
    read(tmp_path)
  assert captions(read(tmp_path, metadata="metadata.jsonl")) == {"a.png": ("b",)}


def test_a_column_of_a_list_that_is_not_there_is_not_passed_over(tmp_path):
  write(tmp_path, {**TWO, "a.txt": "a"})
  for flag in ("image_column", "split_column"):
    with pytest.raises(UserError, match=rf"--{flag}=x needs a list"):
      read(tmp_path, **{flag: "x"})
