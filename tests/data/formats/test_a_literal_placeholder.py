"""What a caption or a text says is text, in every format: `<image>` is a picture's place in conversations that name
pictures, and nowhere else. (Of the sets of edits, test_edit_columns.py has a test for each in each form.)"""

import json

import numpy as np
import pyarrow
import pytest
import tensorflow_datasets as tfds
from pyarrow import parquet

from omniimage.data.conversation import ImageTurn, TextTurn, encode
from omniimage.data.records import Text
from omniimage.data.text import TextTokenizer
from omniimage.data.transcript import read_tokens
from omniimage.size import Size
from omniimage.vocabulary import Vocabulary
from tests.data.formats.made import picture, read, tar, write
from tests.tfds_sets import make

SAID = "the <image> tag, </image>, <user> and <eos>"
ASKED = [{"role": "user", "content": SAID}, {"role": "assistant", "content": SAID}]
PARTS = [
  {
    "role": "user",
    "content": [{"type": "text", "text": SAID}, {"type": "image_url", "image_url": {"url": "a.png"}}],
  },
  {"role": "assistant", "content": [{"type": "output_text", "text": SAID}]},
]
LLAVA = [{"from": "human", "value": SAID}, {"from": "gpt", "value": SAID}]
FILES = {
  "folder": {"a.png": picture(), "a.txt": SAID},
  "folder with a list": {"a.png": picture(), "metadata.csv": f'file_name,text\na.png,"{SAID}"\n'},
  "text": {"a.txt": SAID},
  "text in lines": {"a.jsonl": json.dumps({"text": SAID})},
  "messages": {"chat.jsonl": json.dumps({"messages": ASKED})},
  "LLaVA": {"chat.jsonl": json.dumps({"conversations": LLAVA, "image": None})},
  "parts": {"a.png": picture(), "chat.jsonl": json.dumps({"messages": PARTS})},
}


def texts(rows) -> set[str]:
  assert rows and all(row.record for row in rows)
  parts = [part for row in rows for turn in row.record.turns for part in turn.content]
  return {text for part in parts if isinstance(part, Text) for text in part.texts}


@pytest.mark.parametrize("form", FILES)
def test_files_that_say_it(tmp_path, form):
  assert texts(read(write(tmp_path, FILES[form]))) == {SAID}


def test_shards_tables_and_tfds_sets_that_say_it(tmp_path):
  shard = [("0.png", picture()), ("0.txt", SAID), ("1.png", picture(1)), ("1.json", json.dumps({"text": SAID}))]
  assert texts(read(tar(tmp_path / "a.tar", shard))) == {SAID}
  row = {"image": picture(), "text": SAID}
  parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "a.parquet")
  assert texts(read(tmp_path / "a.parquet")) == {SAID}
  features = {"image": tfds.features.Image(), "text": tfds.features.Text()}
  make(tmp_path, "tfds_set", features, {"train": [row]})
  assert texts(read(tmp_path / "tfds_set")) == {SAID}


def test_it_stays_text_up_to_the_tokens_and_back():
  tokenizer = TextTokenizer.load()
  vocabulary = Vocabulary(tokenizer.size, image_codes=10)
  image = ImageTurn(np.zeros((2, 2), np.int32), is_target=True)
  tokens = encode([TextTurn(SAID, is_target=False), image], tokenizer, vocabulary, Size(2, 2, 4)).tokens
  user, assistant = read_tokens(tokens, tokenizer, vocabulary)
  assert user.content == (SAID,) and len(assistant.content) == 1
