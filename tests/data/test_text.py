"""The text tokenizer: every text comes back, no text becomes a special, captions are short."""

import hashlib
import json
import pickle
import re

import numpy as np
import pytest
from tokenizers import (
  AddedToken,
  Regex,
  Tokenizer,
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
  trainers,
)

from omniimage.data import emoji, text
from omniimage.data.scenes import captions as scene_captions
from omniimage.data.scenes.world import GRIDS, scene_of
from omniimage.errors import UserError

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
  captions = list(scene_captions.vocabulary_captions(1000, seed=1))
  words = {word for caption in captions for word in re.findall(r"\w+|[^\w\s]", caption)}
  assert len(words) >= 50 and {"a", "triangle", "center", "row", "5", ",", "."} <= words
  for word in words:
    if word.isalnum():
      assert len(tokenizer.encode(word)) == 1 and len(tokenizer.encode(f"one {word}")) == 2, word
    else:
      assert len(tokenizer.encode(f"one{word}")) == 2, word


@pytest.mark.parametrize("grid", GRIDS)
def test_a_scene_caption_has_a_token_a_word(tokenizer, grid):
  for caption in scene_captions.vocabulary_captions(200, seed=2):
    assert len(tokenizer.encode(caption)) == len(re.findall(r"\w+|[^\w\s]", caption))


@pytest.mark.parametrize(("grid", "num_objects", "budget"), [(2, 4, 40), (3, 4, 40), (4, 4, 48), (5, 20, 256)])
def test_scene_captions_keep_their_token_budget(tokenizer, grid, num_objects, budget):
  rng = np.random.default_rng(0)
  for index in range(50):
    scene = scene_of(index, "train", grid=grid, min_objects=num_objects, max_objects=num_objects)
    assert len(tokenizer.encode(scene_captions.caption(scene, rng))) <= budget


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
  for given in (*scene_captions.vocabulary_captions(20, seed=3), "an emoji of a grinning face, cheerful", *ODD_TEXTS):
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


@pytest.mark.parametrize(
  "content, said",
  [
    (b"", "it is no JSON: Expecting value"),
    (b"{", "it is no JSON"),
    (b"[" * 100_000, "recursion"),
    (b"[]", "it describes no tokenizer"),
    (b"{}", "it describes no tokenizer"),
    (b'"text"', "it describes no tokenizer"),
    (b'{"model": 1}', "it describes no tokenizer"),
    (b'{"model": {"type": "BPE"}}', "tokenizer"),
    (b"\x00\x01", "it is no JSON"),
    (b"\x80\x00GGUF", "it is no text, but some binary file"),
  ],
)
def test_a_broken_file_is_named_in_one_line(tmp_path, content, said):
  path = tmp_path / "broken.json"
  path.write_bytes(content)
  assert said in _refusal(path)


def test_a_vocabulary_without_a_name_is_refused_in_plain_words():
  with pytest.raises(UserError, match=r"text tokenizer '': it has no name; set data.vocabulary to "):
    text.TextTokenizer.load("")


@pytest.mark.parametrize(
  "token, said",
  [
    ("<x>", """an added token needs an id and its content: "<x>\""""),
    ({"id": 999}, "needs an id and its content"),
    ({"id": "999", "content": "<x>"}, "needs an id and its content"),
    ({"id": -1, "content": "<x>"}, "'<x>' has the id -1; ids are from 0"),
    ({"id": 10**12, "content": "<x>"}, "'<x>' has the id 1000000000000"),
    ({"id": 7, "content": "<x>"}, "'<x>' cannot have the id 7, which is another's"),
  ],
)
def test_an_added_token_that_makes_no_sense_is_named(foreign, tmp_path, token, said):
  assert said in _refusal(_saved({**foreign, "added_tokens": [*foreign["added_tokens"], token]}, tmp_path))


def test_an_added_token_may_leave_out_what_is_usual(foreign, tmp_path):
  description = json.loads(json.dumps(foreign))
  for token in description["added_tokens"]:
    del token["special"], token["lstrip"], token["single_word"]
  tokenizer = text.TextTokenizer.load(_saved(description, tmp_path))
  assert tokenizer.size == text.TextTokenizer.load(_saved(foreign, tmp_path)).size


@pytest.mark.parametrize("shift", [(5, 9, 9, 20), (9, 5, 30, 7), (0, 3, 3, 3)])
def test_added_tokens_keep_their_ids_over_gaps_and_in_any_order(foreign, tmp_path, shift):
  description = json.loads(json.dumps(foreign))
  for token, by in zip(description["added_tokens"], shift):
    token["id"] += by
  tokenizer = text.TextTokenizer.load(_saved(description, tmp_path))
  ids = {token["id"]: token["content"] for token in description["added_tokens"]}
  assert {i: tokenizer.decode([i]) for i in ids} == ids
  assert tokenizer.size == max(ids) + 1
  plain = text.TextTokenizer.load(_saved(foreign, tmp_path))
  given = "a small <think> red circle <|unused 302|>"
  assert tokenizer.encode(given) == plain.encode(given), "no other id moves"


def test_an_added_token_keeps_its_id_in_a_gap_of_the_words(foreign, tmp_path):
  description = json.loads(json.dumps(foreign))
  vocab = description["model"]["vocab"]
  last = max(vocab, key=vocab.get)
  first = description["added_tokens"][0]
  vocab[last], first["id"] = 400, vocab[last]
  for i, token in enumerate(description["added_tokens"][1:]):
    token["id"] = 402 + i
  tokenizer = text.TextTokenizer.load(_saved(description, tmp_path))
  for token in description["added_tokens"]:
    assert tokenizer.decode([token["id"]]) == token["content"]
  assert tokenizer.decode([400]) == last.replace("Ġ", " ")


def test_dropout_is_switched_off_loudly(foreign, tmp_path, caplog):
  description = json.loads(json.dumps(foreign))
  description["model"]["dropout"] = 0.5
  tokenizer = text.TextTokenizer.load(_saved(description, tmp_path))
  assert "its dropout of 0.5 is left out" in caplog.text
  plain = text.TextTokenizer.load(_saved(foreign, tmp_path))
  given = "a small red circle and a large blue star"
  assert all(tokenizer.encode(given) == plain.encode(given) for _ in range(20))


def test_a_breakdown_of_the_library_is_one_line_too(foreign, tmp_path, monkeypatch):
  class PanicException(BaseException):
    pass

  def panic(*_):
    raise PanicException("bad split")

  monkeypatch.setattr(text, "losses", panic)
  assert "the library breaks down over it: bad split" in _refusal(_saved(foreign, tmp_path))


def test_what_gives_other_ids_each_time_is_refused(foreign, tmp_path, monkeypatch):
  """Whatever else the library may draw: Unigram's samples, say."""
  build = text.build

  def drawing(description, name):
    built, added = build(description, name)
    built.model.dropout = 0.5
    return built, added

  monkeypatch.setattr(text, "build", drawing)
  assert "it gives a text other ids each time" in _refusal(_saved(foreign, tmp_path))


@pytest.mark.parametrize(
  "normalizer, lost",
  [
    (normalizers.Lowercase(), r"'A Red STAR' comes back as 'a red star'"),
    (normalizers.NFKC(), r"'\xa0' comes back as ' '"),
    (normalizers.NFKD(), r"'\xa0' comes back as ' '"),
    (normalizers.Strip(), "white space at the ends of a text (Strip)"),
    (normalizers.Strip(left=False), "white space at the ends of a text (Strip)"),
    (normalizers.StripAccents(), r"'e\u0301' comes back as 'e'"),
    (normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]), r"'\xe9' comes back as 'e'"),
    (normalizers.Replace("rare", "often"), r"'rare' comes back as 'often'"),
    (normalizers.Sequence([normalizers.NFC(), normalizers.Replace("✂", "")]), r"'\u2702' comes back as ''"),
    (normalizers.Replace(Regex(" {2,}"), " "), r"'  a   b    c  ' comes back as ' a b c '"),
    (normalizers.Prepend("x"), r"'' comes back as 'x'|'red' comes back as 'xred'"),
    (normalizers.BertNormalizer(lowercase=False, strip_accents=False, handle_chinese_chars=True), "comes back as"),
    (normalizers.Nmt(), "comes back as"),
  ],
)
def test_a_normalizer_that_loses_text_is_refused_with_what_it_loses(foreign, tmp_path, normalizer, lost):
  tokenizer = Tokenizer.from_str(json.dumps(foreign))
  tokenizer.normalizer = normalizer
  assert re.search(lost if "|" in lost else re.escape(lost), _refusal(_saved(json.loads(tokenizer.to_str()), tmp_path)))


@pytest.mark.parametrize(
  "pre_tokenizer",
  [
    pre_tokenizers.WhitespaceSplit(),
    pre_tokenizers.Metaspace(),
    pre_tokenizers.CharDelimiterSplit("|"),
    pre_tokenizers.Split("#", "removed"),
    pre_tokenizers.Punctuation("removed"),
  ],
)
def test_a_pre_tokenizer_that_loses_text_is_refused(foreign, tmp_path, pre_tokenizer):
  tokenizer = Tokenizer.from_str(json.dumps(foreign))
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizer, tokenizer.pre_tokenizer])
  assert "comes back as" in _refusal(_saved(json.loads(tokenizer.to_str()), tmp_path))


def test_bytes_that_a_vocabulary_lacks_are_named(foreign, tmp_path):
  description = json.loads(json.dumps(foreign))
  vocab = description["model"]["vocab"]
  vocab["[none]"] = vocab.pop("õ")  # byte 0xF5 is in no text
  text.TextTokenizer.load(_saved(description, tmp_path))
  vocab["[neither]"] = vocab.pop("ô")  # the first byte of the last plane
  assert r"'\U00100000' comes back as" in _refusal(_saved(description, tmp_path))


@pytest.mark.parametrize(
  "change, lost",
  [
    (normalizers.NFC(), r"'e\u0301' comes back as '\xe9'"),
    (normalizers.NFD(), r"'\xe9' comes back as 'e\u0301'"),
    (normalizers.Replace(Regex("never{9}"), "x"), "what matches 'never{9}' comes back as 'x', or may"),
  ],
)
def test_what_can_be_borne_is_said(foreign, tmp_path, caplog, change, lost):
  tokenizer = Tokenizer.from_str(json.dumps(foreign))
  tokenizer.normalizer = change
  text.TextTokenizer.load(_saved(json.loads(tokenizer.to_str()), tmp_path))
  assert lost in caplog.text and len(caplog.records) == 1


def test_sentencepiece_with_bytes_is_taken_and_its_sign_for_a_space_is_named(tmp_path, caplog):
  """As Llama 2 and Gemma write it."""
  words = ["<unk>", *(f"<0x{i:02X}>" for i in range(256)), "▁", "a"]
  bpe = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], unk_token="<unk>", byte_fallback=True))
  bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
  bpe.decoder = decoders.Sequence(
    [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
  )
  tokenizer = text.TextTokenizer.load(_saved(json.loads(bpe.to_str()), tmp_path))
  assert r"'a\u2581b' comes back as 'a b'" in caplog.text
  for given in ODD_TEXTS[:-1]:
    assert tokenizer.decode(tokenizer.encode(given)) == given


def test_the_shipped_vocabulary_loses_nothing(caplog):
  text.TextTokenizer.load()
  assert not caplog.records


def test_lone_surrogates_become_the_replacement_character(tokenizer):
  given = json.loads('"\\udcff red \\ud83d star"')
  assert tokenizer.decode(tokenizer.encode(given)) == "\ufffd red \ufffd star"
  assert tokenizer.encode("\ud83d\ude00") == tokenizer.encode("😀")


def test_a_fingerprint_is_of_the_content_not_of_its_layout(foreign, tmp_path):
  loaded = text.TextTokenizer.load(_saved(foreign, tmp_path))
  (tmp_path / "other.json").write_text(json.dumps(foreign, indent=1), encoding="utf-8")
  assert loaded.fingerprint == text.vocabulary_fingerprint(tmp_path / "other.json")
  foreign = {**foreign, "added_tokens": foreign["added_tokens"][:-1]}
  assert loaded.fingerprint != text.TextTokenizer.load(_saved(foreign, tmp_path)).fingerprint
  assert text.vocabulary_fingerprint(tmp_path / "nowhere.json") is None


def test_a_vocabulary_with_unknown_words_is_refused(tmp_path):
  path = tmp_path / "words.json"
  Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")).save(str(path))
  assert "not byte-level" in _refusal(path)


def test_a_vocabulary_whose_words_are_its_specials_is_refused(foreign, tmp_path):
  description = json.loads(json.dumps(foreign))
  end = next(token for token in description["added_tokens"] if token["content"] == "<|endoftext|>")
  end["content"], end["id"] = "!", description["model"]["vocab"]["!"]
  assert "a user who types '!'" in _refusal(_saved(description, tmp_path))
