"""The text tokenizer: every text comes back, no text becomes a special, captions are short."""

import hashlib
import json
import pickle
import re

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from omniimage.data import emoji, scenes, text

ODD_TEXTS = (
  "",
  "a",
  " a",
  "  a  ",
  " ",
  "\t\n\r\n \u00a0\u3000",
  "a red circle\nat the top left",
  "naïve café, e\u0301 and é",
  "猫 and 🐈‍⬛ and 👩‍🚀",
  "\x00\x07\x7f\ufeff\uffff",
  "flag of Côte d'Ivoire; 'quoted' \"twice\"",
  "<image><eos></image> <|endoftext|> [UNK] <s>",
  "Ġ ▁ ## Ċ",
)


@pytest.fixture(scope="module")
def tokenizer() -> text.TextTokenizer:
  return text.TextTokenizer.load()


@pytest.fixture(scope="module")
def foreign() -> dict:
  """A tokenizer.json as language models bring it: specials, an added token not marked as special, a first token."""
  bpe = Tokenizer(models.BPE())
  bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
  trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=text.ALPHABET, show_progress=False)
  bpe.train_from_iterator(["a small red circle", "a large blue star"] * 10, trainer)
  bpe.add_special_tokens(["<|begin|>", "<|endoftext|>"])
  bpe.add_tokens([AddedToken("<think>", special=False), AddedToken("    ", special=False)])
  bpe.post_processor = processors.TemplateProcessing(
    "<|begin|> $A", special_tokens=[("<|begin|>", bpe.token_to_id("<|begin|>"))]
  )
  bpe.enable_truncation(4)
  bpe.enable_padding(length=32)
  return json.loads(bpe.to_str())


def _saved(description: dict, tmp_path) -> str:
  path = tmp_path / "tokenizer.json"
  path.write_text(json.dumps(description), encoding="utf-8")
  return str(path)


@pytest.mark.parametrize("given", ODD_TEXTS)
def test_every_text_comes_back_exactly(tokenizer, given):
  assert tokenizer.decode(tokenizer.encode(given)) == given


def test_random_unicode_comes_back_exactly(tokenizer):
  rng = np.random.default_rng(0)
  ranges = [
    (0, 128),
    (0, 0x800),
    (0x2000, 0x3000),
    (0xE000, 0x10000),
    (0x1F000, 0x20000),
    (0, 0xD800),
    (0x10000, 0x110000),
  ]
  for _ in range(500):
    low, high = ranges[rng.integers(len(ranges))]
    given = "".join(map(chr, rng.integers(low, high, size=rng.integers(1, 30))))
    assert tokenizer.decode(tokenizer.encode(given)) == given


def test_ids_fill_the_range_below_size(tokenizer):
  assert tokenizer.size == 1024
  assert {i for given in ODD_TEXTS for i in tokenizer.encode(given)} <= set(range(tokenizer.size))
  assert all(tokenizer.decode([i]) is not None for i in range(tokenizer.size))


def test_bytes_that_are_no_text_decode_without_an_error(tokenizer):
  cat = tokenizer.encode("猫")
  assert "\ufffd" in tokenizer.decode(cat[:-1])


def test_every_word_of_the_scenes_is_one_token(tokenizer):
  captions = list(scenes.vocabulary_captions(1000, seed=1))
  words = {word for caption in captions for word in re.findall(r"\w+|[^\w\s]", caption)}
  assert len(words) >= 50 and {"a", "triangle", "center", "row", "5", ",", "."} <= words
  for word in words:
    if word.isalnum():
      assert len(tokenizer.encode(word)) == 1 and len(tokenizer.encode(f"one {word}")) == 2, word
    else:
      assert len(tokenizer.encode(f"one{word}")) == 2, word


@pytest.mark.parametrize("grid", scenes.GRIDS)
def test_a_scene_caption_has_a_token_a_word(tokenizer, grid):
  for caption in scenes.vocabulary_captions(200, seed=2):
    assert len(tokenizer.encode(caption)) == len(re.findall(r"\w+|[^\w\s]", caption))


@pytest.mark.parametrize(("grid", "num_objects", "budget"), [(2, 4, 40), (3, 4, 40), (4, 4, 48), (5, 20, 256)])
def test_scene_captions_keep_their_token_budget(tokenizer, grid, num_objects, budget):
  rng = np.random.default_rng(0)
  for index in range(50):
    scene = scenes.scene_of(index, "train", grid=grid, min_objects=num_objects, max_objects=num_objects)
    assert len(tokenizer.encode(scenes.caption(scene, rng))) <= budget


def test_emoji_captions_are_short_and_within_their_bound(tokenizer):
  def count(given):
    return len(tokenizer.encode(given))

  rng, lengths, concepts = np.random.default_rng(0), [], emoji.load().concepts
  for concept in concepts[::3]:
    drawn = [count(emoji.caption(concept, rng)) for _ in range(8)]
    assert max(drawn) <= emoji.caption_bound(concept, count) <= 48
    lengths += drawn
  assert np.mean(lengths) < 13
  held_out = [count(emoji.caption(concepts[i], rng)) for i in emoji.indices("test")]
  assert np.mean(held_out) < 16


def test_the_first_word_of_a_caption_is_the_same_token_as_anywhere(tokenizer):
  assert tokenizer.encode("red circle red")[0] == tokenizer.encode("red circle red")[-1]


def test_training_again_gives_the_shipped_vocabulary(tokenizer):
  """The one that runs were trained with, byte for byte: another would give their tokens other meanings."""
  shipped = hashlib.sha256(text.BUILTIN.read_bytes()).hexdigest()
  assert shipped == "0d24596da627ec7e93c75ca2dcc10685d08592806e527a0034f27837c493b0e1"
  again = text.TextTokenizer(text.train_vocabulary(text.builtin_captions(), text.BUILTIN_SIZE))
  hint = "the captions have changed; run: python -m omniimage.data.text"
  assert again.size == tokenizer.size, hint
  for given in (*scenes.vocabulary_captions(20, seed=3), "an emoji of a grinning face, cheerful", *ODD_TEXTS):
    assert again.encode(given) == tokenizer.encode(given), hint
    assert again.decode(again.encode(given)) == given, hint


def test_a_vocabulary_smaller_than_the_bytes_is_refused():
  with pytest.raises(ValueError, match="200 ids: it needs at least 256"):
    text.train_vocabulary(["a"], 200)


def test_text_of_a_user_never_parses_into_a_special(foreign, tmp_path):
  tokenizer = text.TextTokenizer.load(_saved(foreign, tmp_path))
  specials = {token["id"]: token["content"] for token in foreign["added_tokens"] if not token["content"].isspace()}
  assert sorted(specials.values()) == ["<think>", "<|begin|>", "<|endoftext|>"]
  for content in specials.values():
    for given in (content, f"a {content} b", content * 2):
      assert specials.keys().isdisjoint(tokenizer.encode(given))
      assert tokenizer.decode(tokenizer.encode(given)) == given
  assert [tokenizer.decode([i]) for i in specials] == list(specials.values()), "what a model writes can still be read"


def test_a_foreign_vocabulary_is_used_as_text_only(foreign, tmp_path):
  tokenizer = text.TextTokenizer.load(_saved(foreign, tmp_path))
  assert tokenizer.size == max(token["id"] for token in foreign["added_tokens"]) + 1
  given = "a small red circle and a large blue star, neither truncated nor padded"
  assert tokenizer.decode(tokenizer.encode(given)) == given
  assert len(tokenizer.encode("a")) == 1, "no first token, no padding, no space before the text"


def test_a_copy_in_a_data_worker_encodes_alike(foreign, tmp_path):
  tokenizer = text.TextTokenizer.load(_saved(foreign, tmp_path))
  copy = pickle.loads(pickle.dumps(tokenizer))
  for given in (*ODD_TEXTS, "<think>"):
    assert copy.encode(given) == tokenizer.encode(given)


def _refusal(path) -> str:
  with pytest.raises(ValueError) as refusal:
    text.TextTokenizer.load(str(path))
  message = str(refusal.value)
  assert "\n" not in message and str(path) in message and "tokenizer.json" in message
  return message


def test_a_missing_file_is_named_in_one_line(tmp_path):
  assert "No such file" in _refusal(tmp_path / "nowhere.json")
  assert "directory" in _refusal(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '"text"', '{"model": {"type": "BPE"}}', "\x00\x01"])
def test_a_broken_file_is_named_in_one_line(tmp_path, content):
  path = tmp_path / "broken.json"
  path.write_text(content)
  _refusal(path)


def test_a_vocabulary_with_unknown_words_is_refused(tmp_path):
  path = tmp_path / "words.json"
  Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")).save(str(path))
  assert "not byte-level" in _refusal(path)


def test_a_vocabulary_whose_words_are_its_specials_is_refused(foreign, tmp_path):
  description = json.loads(json.dumps(foreign))
  end = next(token for token in description["added_tokens"] if token["content"] == "<|endoftext|>")
  end["content"], end["id"] = "!", description["model"]["vocab"]["!"]
  assert "a user who types '!'" in _refusal(_saved(description, tmp_path))
