import json

import pytest

from omniimage.data.formats.text import MAX_CHARACTERS
from omniimage.errors import UserError
from tests.data.formats.made import problems, read, said, write


def texts(rows) -> list[str]:
  assert all(row.record.turns[0].role == "assistant" for row in rows if row.record)
  return [said(row)[0][1][0] for row in rows if row.record]


def test_a_short_file_is_one_document(tmp_path):
  write(
    tmp_path,
    {"b.txt": "\ufeffTwo.\r\n\r\nParagraphs.\n", "a/c.txt": "One", "empty.txt": " \n", "latin.txt": b"caf\xe9"},
  )
  found = read(tmp_path)
  assert texts(found) == ["One", "Two.\n\nParagraphs."]
  assert "no text" in problems(found)["empty.txt"] and "utf-8" in problems(found)["latin.txt"]


def test_a_long_file_is_parted_between_paragraphs_and_loses_no_word(tmp_path, monkeypatch):
  monkeypatch.setattr("omniimage.data.formats.text.READ_BYTES", 1001)
  words = [f"wörd{i}" for i in range(4000)]
  paragraphs = [" ".join(words[i : i + 50]) for i in range(0, len(words), 50)]
  found = texts(read(write(tmp_path, {"book.txt": "\n\n".join(paragraphs)})))
  assert len(found) > 10 and max(map(len, found)) <= MAX_CHARACTERS
  assert " ".join(found).split() == words
  assert all(text.split("\n\n")[0] in paragraphs for text in found)


def test_a_file_without_any_space_is_parted_too(tmp_path):
  found = texts(read(write(tmp_path, {"a.txt": "猫" * 5000})))
  assert "".join(found) == "猫" * 5000 and len(found) == 3


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv"])
def test_of_a_list_each_row_is_a_record_as_it_stands(tmp_path, suffix):
  long = "word " * 1000 + "end"
  if suffix == "jsonl":
    content = json.dumps({"text": long, "id": 1}) + "\n" + json.dumps({"text": None, "id": 2})
  else:
    mark = {"csv": ",", "tsv": "\t"}[suffix]
    content = f"id{mark}text\n1{mark}{long}\n2{mark}\n"
  found = read(write(tmp_path, {f"a.{suffix}": content}))
  assert texts(found) == [long] and list(problems(found).values()) == ["no caption: text says nothing"]


def test_the_column_of_texts_can_be_named(tmp_path):
  write(tmp_path, {"a.jsonl": '{"story": "Once."}\n'})
  assert texts(read(tmp_path, caption_columns=["story"])) == ["Once."]
  with pytest.raises(UserError, match=r"a.jsonl has no 'text'.*it has story"):
    read(tmp_path, "text")
