"""The list of bad records: each once, also over resumes, and no file before there is one."""

import json

from omniimage import strict_json
from omniimage.data.bad_records import BadRecords


def test_each_record_is_listed_once_also_by_a_run_that_goes_on(tmp_path):
  path = tmp_path / "bad_records.jsonl"
  for _ in range(3):
    listed = BadRecords(path)
    for _ in range(2):
      listed.add("pictures/cat.jpg", 7, "truncated")
      listed.add("pictures/größe\n.jpg", 8, "zero bytes")
  lines = path.read_text().splitlines()
  assert [json.loads(line) for line in lines] == [
    {"key": "pictures/cat.jpg", "record": 7, "reason": "truncated"},
    {"key": "pictures/größe\n.jpg", "record": 8, "reason": "zero bytes"},
  ]


def test_a_line_that_was_cut_short_is_left_and_what_follows_is_whole(tmp_path):
  path = tmp_path / "bad_records.jsonl"
  BadRecords(path).add("a", 1, "x")
  path.write_bytes(path.read_bytes() + b'{"key": "b", "rec')
  again = BadRecords(path)
  again.add("b", 2, "y")
  again.add("a", 1, "x")
  assert [entry["key"] for entry in strict_json.read_lines(path)] == ["a", "b"]


def test_without_a_bad_record_there_is_no_file(tmp_path):
  BadRecords(tmp_path / "bad_records.jsonl")
  assert not list(tmp_path.iterdir())
