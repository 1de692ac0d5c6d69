"""Bookkeeping that any JSON reader takes, and that is read whatever has happened to it."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omniimage import strict_json

scalars = st.floats() | st.integers() | st.none() | st.booleans() | st.text(max_size=3)
keys = st.text(max_size=3)
objects = st.dictionaries(
  keys, st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=8)
)
quick = settings(max_examples=50, deadline=None)


def strictly(text: str):
  def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")

  return json.loads(text, parse_constant=refuse)


def test_what_is_not_finite_is_null_and_its_reason_stands_beside_it():
  text = strict_json.dumps({"loss": math.nan, "norm": math.inf, "step": 3, "of": [1.0, -math.inf]})
  assert strictly(text) == {
    "loss": None, "norm": None, "step": 3, "of": [1.0, None],
    "not_finite": {"loss": "nan", "norm": "inf", "of": [None, "-inf"]},
  }  # fmt: skip


@quick
@given(objects)
def test_whatever_is_written_is_strict_and_comes_back(value):
  text = strict_json.dumps(value)
  strictly(text)
  assert repr(strict_json.loads(text)) == repr(value)


@pytest.mark.parametrize(
  "end", [b"\xff", b'{"step": 2, "lo', b"\0\0\0", b"3\n", b"[" * 10**5 + b"\n", b"9" * 5000, b"\xff\xfe"]
)
def test_a_torn_or_foreign_end_costs_no_line(tmp_path, end):
  path = tmp_path / "lines.jsonl"
  strict_json.append_line(path, {"step": 1})
  with path.open("ab") as file:
    file.write(end)
  assert strict_json.read_lines(path) == [{"step": 1}]
  strict_json.append_line(path, {"step": 2})
  assert strict_json.read_lines(path) == [{"step": 1}, {"step": 2}]


@quick
@given(st.binary(max_size=40), st.integers(0, 40))
def test_bytes_cut_off_and_put_on_anywhere_are_never_an_error(tmp_path_factory, noise, place):
  path = tmp_path_factory.getbasetemp() / "lines.jsonl"
  whole = b'{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n'
  path.write_bytes(whole[:place] + noise + whole[place:])
  assert all(isinstance(entry, dict) for entry in strict_json.read_lines(path))


def test_no_file_has_no_lines(tmp_path):
  assert strict_json.read_lines(tmp_path / "lines.jsonl") == []
