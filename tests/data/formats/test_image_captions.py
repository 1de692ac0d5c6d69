import numpy as np
import pytest

from omniimage.data.formats.captions import Captions
from omniimage.data.records import BadRecord
from omniimage.errors import UserError


def of(columns, **fields):
  return Captions(columns, list(fields), "it").of(fields)


@pytest.mark.parametrize(
  ("value", "expected"),
  [
    (" a cat\n", ("a cat",)),
    ("\ufeffa", ("a",)),
    (b"caf\xc3\xa9", ("café",)),
    (["a", " a ", "", None, "b"], ("a", "b")),
    (np.array([b"a", b"b"]), ("a", "b")),
    ('["a", "b"]', ("a", "b")),
    ("[a] cat", ("[a] cat",)),
    ("[1, 2]", ("[1, 2]",)),
    ("[" * 5000, ("[" * 5000,)),
    (7, ("7",)),
    (1.5, ("1.5",)),
    (np.int64(3), ("3",)),
    (0, ("0",)),
    ("0", ("0",)),
    ("nan", ("nan",)),
    ("a {b} %s", ("a {b} %s",)),
  ],
)
def test_what_a_value_says(value, expected):
  assert of(["text"], text=value) == expected


@pytest.mark.parametrize(
  "value", [None, float("nan"), np.float32("nan"), "", " \t\n\u3000", b"", [], [None, ""], "[]", "\0\0"]
)
def test_what_says_nothing_is_no_caption(value):
  with pytest.raises(BadRecord, match=r"no caption: text says nothing"):
    of(["text"], text=value)


@pytest.mark.parametrize("value", [b"\xff\xfe", "\ud800", "\udcff", ["fine", "\ud800"], {"en": "a"}, object()])
def test_what_is_no_text_is_a_bad_record(value):
  with pytest.raises(BadRecord, match=r"text is (not UTF-8|a )"):
    of(["text"], text=value)


def test_templates_fill_in_fields_and_say_nothing_over_blanks():
  fields = {"label": "cat", "style": "flat", "tags": ["pet", "animal"], "blank": " "}
  assert of(["{label} in {style} style"], **fields) == ("cat in flat style",)
  assert of(["{label}: {tags}"], **fields) == ("cat: pet, animal",)
  assert of(["{{{label}}}"], **fields) == ("{cat}",)
  assert of(["{blank} cat", "label"], **fields) == ("cat",)


def test_several_columns_are_alternatives_and_the_first_usual_name_is_taken_without_any():
  assert of(["a", "b"], a="one", b=["two", "one"]) == ("one", "two")
  assert of([], caption="second", text="first") == ("first",)
  assert of([], caption="second", text=None) == ("second",)


def test_a_column_may_have_braces_or_dots_in_its_name():
  assert of(["{odd}"], **{"{odd}": "a", "odd": "b"}) == ("a",)
  assert of(["{a.b} {c[0]}"], **{"a.b": "x", "c[0]": "y"}) == ("x y",)


@pytest.mark.parametrize("column", ["{", "a } b", "{}", "{label:>30}", "{label!r}"])
def test_what_is_no_template_is_told(column):
  with pytest.raises(UserError, match=r"no template"):
    of([column], label="cat")


def test_columns_that_do_not_exist_are_told_with_those_that_do():
  with pytest.raises(UserError, match=r"it has no 'capton' for a caption; it has label, style"):
    of(["label", "capton"], label="cat", style="flat")
