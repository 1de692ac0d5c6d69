"""Edits in several steps, from the columns of a data set of edits to the batches that are learnt."""

import dataclasses
import json

import numpy as np
import pytest

from omniimage.data.batches import Batches
from omniimage.data.sources import open_source
from omniimage.data.sources.records import RecordsSettings
from omniimage.data.transcript import read_tokens
from omniimage.vocabulary import Vocabulary
from tests import small, stored_records
from tests.data.formats.made import read, write
from tests.stored_records import picture

ALTERNATIVES, NEXT = ["make it blue", "blue, please"], "now green"
COLORS = (230, 0, 0), (0, 0, 230), (0, 230, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A prepared data set of what is read of one line in Bagel's columns, several times."""
  root = tmp_path_factory.mktemp("edits")
  names = [f"{i}.png" for i in range(3)]
  line = {"image_list": names, "instruction_list": [ALTERNATIVES, [NEXT]]}
  write(root / "source", {name: picture(color) for name, color in zip(names, COLORS)})
  write(root / "source", {"edits.jsonl": f"{json.dumps(line)}\n" * 8})
  stored_records.write(root / "set", {"train": [row.record for row in read(root / "source")]})
  return root / "set"


def batches_of(folder, drop_text: float) -> Batches:
  settings = small.settings(**{"data.images_per_row": 3, "data.sequence_length": 96, "data.drop_text": drop_text})
  source = RecordsSettings("records", ("{}",), "crop", (255, 255, 255), str(folder))
  data, tokenizer = dataclasses.replace(settings.data, source=source), small.text_tokenizer()
  vocabulary = Vocabulary(tokenizer.size, image_codes=10)
  opened = open_source(data, "train", settings.buckets, tokenizer, vocabulary)
  return Batches(opened, data, vocabulary, tokenizer, settings.buckets, seed=0)


def told(batch, row: int) -> list[tuple]:
  """(role, texts and "i" for images) of the only conversation of a row."""
  tokenizer = small.text_tokenizer()
  own = batch["tokens"][row][batch["segments"][row] == 1]
  turns = read_tokens(own, tokenizer, Vocabulary(tokenizer.size, image_codes=10))
  return [(turn.role, *(part if isinstance(part, str) else "i" for part in turn.content)) for turn in turns]


def test_alternatives_are_drawn_by_the_batch_index_and_the_pictures_that_are_drawn_are_learnt(folder):
  batches, drawn = batches_of(folder, drop_text=0.0), set()
  for index in range(4):
    batch = batches.batch(index, 4)
    np.testing.assert_array_equal(batch["tokens"], batches.batch(index, 4)["tokens"])
    for row in range(4):
      (_, image, words), *others = told(batch, row)
      assert image == "i" and others == [("assistant", "i"), ("user", NEXT), ("assistant", "i")]
      drawn.add(words)
      assert batch["image_is_target"][row].tolist() == [False, True, True]
      middles = batch["images"][row][:, 8, 8].tolist()
      assert middles == [list(color) for color in COLORS]
  assert drawn == set(ALTERNATIVES)


def test_only_what_the_assistant_draws_has_weight(folder):
  batch, tokenizer = batches_of(folder, drop_text=0.0).batch(0, 4), small.text_tokenizer()
  vocabulary = Vocabulary(tokenizer.size, image_codes=10)
  for tokens, weights in zip(batch["tokens"], batch["loss_weights"]):
    begins = np.flatnonzero(np.isin(tokens, (vocabulary.user, vocabulary.assistant)))
    whose = np.searchsorted(begins, np.arange(len(tokens)), side="right") - 1  # which turn a token is of
    is_assistants = tokens[begins[np.maximum(whose, 0)]] == vocabulary.assistant
    expected = is_assistants & (tokens != vocabulary.assistant) & (tokens != vocabulary.pad)
    np.testing.assert_array_equal(weights, expected)
    assert (weights[tokens == vocabulary.eos] == 1).all() and (tokens == vocabulary.eos).sum() == 2


def test_without_its_condition_the_last_step_has_no_words_and_all_its_pictures(folder):
  batch = batches_of(folder, drop_text=0.999).batch(0, 4)
  for row in range(4):
    first, *others = told(batch, row)
    assert first[1] == "i" and first[2] in ALTERNATIVES
    assert others == [("assistant", "i"), ("user",), ("assistant", "i")]
