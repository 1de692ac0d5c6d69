import gzip
import io
import json
import random
import tarfile

import pytest

from omniimage.errors import UserError
from tests.data.formats.made import captions, picture, problems, read, tar, write


def members(n: int, first: int = 0) -> list[tuple[str, bytes | str]]:
  return [
    member
    for i in range(first, first + n)
    for member in ((f"{i:04}.png", picture(i)), (f"{i:04}.txt", f"number {i}"), (f"{i:04}.json", json.dumps({"n": i})))
  ]


def test_members_in_any_order_give_the_same_records(tmp_path):
  shuffled = members(20)
  random.Random(0).shuffle(shuffled)
  path = tar(tmp_path / "a.tar", shuffled)
  found = read(path)
  assert captions(found) == {f"a.tar/{i:04}": (f"number {i}",) for i in range(20)}.copy()
  assert all(row.record.images == (picture(int(row.key[-4:])),) for row in found)


def test_folders_are_part_of_the_key_and_endings_of_any_case_are_fields(tmp_path):
  path = tar(
    tmp_path / "a.tar", [("./x/1.JPG", picture(1)), ("x/1.Txt", "one"), ("y/1.jpeg", picture(2)), ("y/1.txt", "two")]
  )
  assert captions(read(path)) == {"a.tar/x/1": ("one",), "a.tar/y/1": ("two",)}


def test_a_folder_a_glob_a_range_and_a_single_shard_are_the_same(tmp_path):
  for i in range(3):
    tar(tmp_path / f"set-{i:03}.tar", members(2, 2 * i))
  whole = captions(read(tmp_path))
  assert len(whole) == 6
  for source in ("set-{000..002}.tar", "set-*.tar", "set-{000,001,002}.tar", "set-00[0-2].tar"):
    assert captions(read(tmp_path / source)) == whole
  assert len(captions(read(tmp_path / "set-001.tar"))) == 2
  with pytest.raises(UserError, match=r"1 of 4 files are not there, .*set-003.tar"):
    read(tmp_path / "set-{000..003}.tar")


def test_gzip_is_read_like_the_tar_inside_it(tmp_path):
  tar(tmp_path / "a.tar.gz", members(3), "w:gz")
  assert len(captions(read(tmp_path))) == 3


def test_what_file_managers_leave_is_passed_over(tmp_path):
  left = [(".DS_Store", "x"), ("._0000.png", "x"), ("__MACOSX/._0000.png", "x"), ("a/.hidden/1.png", "x")]
  assert len(read(tar(tmp_path / "a.tar", [*left, *members(1)]))) == 1


def test_what_is_no_sample_is_a_row_with_a_reason(tmp_path):
  odd = [
    ("0000.png", picture(9)),
    ("no_text.png", picture(1)),
    ("no_picture.txt", "x"),
    ("empty.png", b""),
    ("empty.txt", "x"),
    ("v1.5.png", picture(2)),
    ("v1.5.txt", "x"),
    ("broken.png", picture(3)),
    ("broken.json", "{"),
    ("latin.png", picture(4)),
    ("latin.txt", b"caf\xe9"),
    ("../up.png", picture(5)),
    ("/root.png", picture(6)),
  ]
  found = read(tar(tmp_path / "a.tar", [*members(1), *odd]))
  assert captions(found) == {"a.tar/0000": ("number 0",)}
  told = {key.removeprefix("a.tar/"): reason for key, reason in problems(found).items()}
  assert "duplicate" in told["0000.png"] and "no caption" in told["no_text"] and "no picture" in told["no_picture"]
  assert "0 bytes" in told["empty"] and "no dots" in told["v1"] and "no JSON" in told["broken"]
  assert "not UTF-8" in told["latin"] and "outside" in told["../up.png"] and "outside" in told["/root.png"]
  assert len(told) == 9


def test_links_in_a_tar_are_not_followed(tmp_path):
  path = tmp_path / "a.tar"
  tar(path, members(1))
  with tarfile.open(path, "a") as file:
    link = tarfile.TarInfo("1.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    file.addfile(link)
  assert "link" in problems(read(path))["a.tar/1.png"]


@pytest.mark.parametrize("zipped", [False, True])
def test_of_a_truncated_shard_what_is_there_counts(tmp_path, zipped):
  noise = [
    (name, random.Random(name).randbytes(4000) if name.endswith("png") else content) for name, content in members(10)
  ]
  tar(tmp_path / "whole/a.tar", noise)
  content = (tmp_path / "whole/a.tar").read_bytes()
  content = gzip.compress(content)[:20000] if zipped else content[:26000]
  found = read(write(tmp_path / "cut", {"a.tar": content}))
  kept = captions(found)
  assert 3 <= len(kept) <= 5
  assert found[-1].key == "a.tar" and "truncated" in found[-1].problem


@pytest.mark.parametrize("end", range(0, 3 * 1536 + 1, 512))
def test_a_shard_that_ends_at_any_block_never_loses_a_whole_sample_silently(tmp_path, end):
  tar(tmp_path / "whole/a.tar", members(3))
  tar(tmp_path / "cut/0.tar", members(1))
  content = (tmp_path / "whole/a.tar").read_bytes()
  write(tmp_path / "cut", {"a.tar": content[:end]})
  found = read(tmp_path / "cut")
  assert "truncated" in found[-1].problem
  assert len(captions(found)) >= 1 + end // 3072


def test_a_shard_that_is_no_tar_is_a_row_and_only_such_shards_are_an_error(tmp_path):
  write(tmp_path, {"b.tar": "<html>404</html>", "c.tar": b""})
  with pytest.raises(UserError, match=r"2 tar files, but no sample"):
    read(tmp_path)
  tar(tmp_path / "a.tar", members(1))
  found = read(tmp_path)
  assert len(captions(found)) == 1 and set(problems(found)) == {"b.tar", "c.tar"}


def test_fields_of_the_json_are_captions_too(tmp_path):
  described = {"alternatives": ["a cat", "a tabby"], "style": "flat", "n": 3}
  path = tar(tmp_path / "a.tar", [("1.png", picture()), ("1.json", json.dumps(described))])
  assert captions(read(path, caption_columns=["alternatives"]))["a.tar/1"] == ("a cat", "a tabby")
  assert captions(read(path, caption_columns=["{n} in {style} style"]))["a.tar/1"] == ("3 in flat style",)
  with pytest.raises(UserError, match=r"no 'capton'.*alternatives, json, n, png, style"):
    read(path, caption_columns=["capton"])
  with pytest.raises(UserError, match=r"no 'text' for a caption"):
    read(path)


def test_one_of_several_pictures_can_be_chosen(tmp_path):
  path = tar(tmp_path / "a.tar", [("1.in.png", picture(1)), ("1.out.png", picture(2)), ("1.txt", "edge")])
  assert read(path, image_column="out.png")[0].record.images == (picture(2),)
  with pytest.raises(UserError, match=r"no 'jpg'.*in.png, out.png, txt"):
    read(path, image_column="jpg")


def test_names_of_shards_are_splits_where_both_occur(tmp_path):
  tar(tmp_path / "coco-train_000.tar", members(1))
  tar(tmp_path / "coco-val_000.tar", members(1, 1))
  assert [row.split for row in read(tmp_path)] == ["train", "test"]


def test_img2dataset_leaves_its_lists_beside_the_shards(tmp_path):
  tar(tmp_path / "00000.tar", members(1))
  import pyarrow
  from pyarrow import parquet

  parquet.write_table(
    pyarrow.table({"url": ["x"], "caption": ["a"], "key": ["0"], "status": ["success"]}), tmp_path / "00000.parquet"
  )
  write(tmp_path, {"00000_stats.json": "{}"})
  assert list(captions(read(tmp_path))) == ["00000.tar/0000"]


def test_a_large_member_is_not_read(tmp_path, monkeypatch):
  monkeypatch.setattr("omniimage.data.formats.tars.MAX_BYTES", 1000)
  path = tar(tmp_path / "a.tar", [*members(1), ("1.png", io.BytesIO(bytes(2000)).getvalue()), ("1.txt", "x")])
  assert "2000 bytes" in problems(read(path))["a.tar/1"]
