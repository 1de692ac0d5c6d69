"""Whatever bytes a file has, a source is refused in one line, or its rows are records or have reasons."""

import json
import random

import pyarrow
import pytest
from pyarrow import parquet

from omniimage.errors import UserError
from tests.data.formats.made import picture, read, tar, write

TRIALS = 25


def listed(root):
  rows = "".join(json.dumps({"file_name": f"{i}.png", "text": f"número {i}"}) + "\n" for i in range(6))
  return write(root, {"metadata.jsonl": rows, **pictures()}), "metadata.jsonl"


def comma_separated(root):
  rows = "".join(f'{i}.png,"número {i}"\n' for i in range(6))
  return write(root, {"metadata.csv": "file_name,text\n" + rows, **pictures()}), "metadata.csv"


def shards(root):
  tar(
    root / "a.tar", [(f"{i}.{end}", content) for i in range(6) for end, content in (("png", picture(i)), ("txt", "x"))]
  )
  return str(root), "a.tar"


def zipped(root):
  members = [
    (f"{i}.{end}", content) for i in range(6) for end, content in (("png", picture(i)), ("json", '{"text": "x"}'))
  ]
  tar(root / "a.tar.gz", members, "w:gz")
  return str(root), "a.tar.gz"


def columns(root):
  rows = [{"image": {"bytes": picture(i), "path": None}, "text": f"{i}"} for i in range(6)]
  root.mkdir(exist_ok=True)
  parquet.write_table(pyarrow.Table.from_pylist(rows), root / "a.parquet", row_group_size=2)
  return str(root), "a.parquet"


def chats(root):
  turns = [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": "x"}]
  rows = "".join(json.dumps({"images": [f"{i}.png"], "messages": turns}) + "\n" for i in range(6))
  return write(root, {"chat.jsonl": rows, **pictures()}), "chat.jsonl"


def steps(root):
  rows = "".join(
    json.dumps({"image_list": [f"{i}.png", "0.png"], "instruction_list": [["número", "x"]]}) + "\n" for i in range(6)
  )
  return write(root, {"edits.jsonl": rows, **pictures()}), "edits.jsonl"


def edited_columns(root):
  rows = [{"src_img": picture(i), "edited_img": picture(i), "edited_prompt_list": [f"{i}"]} for i in range(6)]
  root.mkdir(exist_ok=True)
  parquet.write_table(pyarrow.Table.from_pylist(rows), root / "a.parquet", row_group_size=2)
  return str(root), "a.parquet"


def edited_shards(root):
  ends = ("src_img.png", picture()), ("edited_img.png", picture(1)), ("edited_prompt_list.json", '["x"]')
  tar(root / "a.tar.gz", [(f"{i}.{end}", content) for i in range(6) for end, content in ends], "w:gz")
  return str(root), "a.tar.gz"


def pictures():
  return {f"{i}.png": picture(i) for i in range(6)}


def damaged(content: bytes, rng: random.Random) -> bytes:
  """With bytes changed, cut out, put in or repeated, or cut short."""
  start = rng.randrange(len(content))
  stop = min(len(content), start + rng.choice((1, 1, 4, 64)))
  middle = rng.choice((rng.randbytes(stop - start), b"", content[start:stop] * 2, b"\0" * 8, b'"', b"\n", b"{"))
  return content[:start] + middle + (b"" if rng.random() < 0.2 else content[stop:])


@pytest.mark.parametrize(
  "make", [listed, comma_separated, shards, zipped, columns, chats, steps, edited_columns, edited_shards]
)
def test_no_damage_ends_in_a_traceback(tmp_path, make):
  source, name = make(tmp_path / "set")
  assert len(read(source)) == 6
  path = tmp_path / "set" / name
  content = path.read_bytes()
  for seed in range(TRIALS):
    path.write_bytes(damaged(content, random.Random(seed)))
    try:
      read(source)  # asserts that every row is a record that can be stored, or has a reason on one line
    except UserError as error:
      assert "\n" not in str(error), seed
