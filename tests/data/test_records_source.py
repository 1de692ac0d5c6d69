"""A prepared folder as a source of training: what packing is told of its records, and what each becomes."""

import dataclasses
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from omniimage.data import conversation
from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.data.images import BadImage
from omniimage.data.prepared import INDEX, count_tokens
from omniimage.data.records import Picture, Record, Text, Turn, captioned, text_alone, to_bytes, turn_tokens
from omniimage.data.sources import open_source
from omniimage.data.sources.records import RecordsSettings
from omniimage.data.sources.source import SPLITS
from omniimage.data.sources.stored import StoredSettings, StoredSource, nearest
from omniimage.data.text import TextTokenizer
from omniimage.errors import SettingsError, UserError
from omniimage.settings import from_config
from omniimage.size import Size
from omniimage.systems.omni import OmniSystem
from omniimage.training.samples import SampleSheets
from omniimage.vocabulary import Vocabulary
from tests import small, stored_records
from tests.stored_records import picture

SQUARE, WIDE, TALL = Size(2, 2, 8), Size(2, 4, 8), Size(4, 2, 8)
SIZES = SQUARE, WIDE, TALL
RED, BLUE = (230, 0, 0), (0, 0, 230)
WHITE = (255, 255, 255)


@pytest.fixture(scope="module")
def text_tokenizer():
  return TextTokenizer.load()


EDIT = Record(
  "edit",
  (
    Turn("user", (Picture(0), Text(("make it blue", "blue, please")))),
    Turn("assistant", (Text(("here it is",)), Picture(1))),
  ),
  (picture(RED), picture(BLUE)),
)
ASKED = Record(
  "asked",
  (Turn("user", (Picture(0), Text(("which color?",)))), Turn("assistant", (Text(("red", "it is red")),))),
  (picture(RED),),
)
RECORDS = [
  captioned("cat.png", ["a cat", "a tabby cat that sleeps", "кот"], picture(RED)),
  captioned("wide.png", ["a lake"], picture(BLUE, 64, 30)),
  captioned("tall.png", ["a tower"], picture(BLUE, 30, 64)),
  EDIT,
  ASKED,
  text_alone("book.txt", "it was a dark and stormy night; " * 5),
  captioned("rotten.png", ["a rotten one"], picture(RED)[:40]),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp("sets") / "mine"
  stored_records.write(path, {"train": RECORDS, "test": RECORDS[:2]}, shard_records=3)
  return path


def settings_of(path, templates=("{}",), fit="crop", background=WHITE) -> RecordsSettings:
  return RecordsSettings("records", templates, fit, background, str(path))


def opened(path, text_tokenizer, split="train", sizes=SIZES, **changes) -> StoredSource:
  data = dataclasses.replace(small.settings().data, source=settings_of(path, **changes))
  return open_source(data, split, sizes, text_tokenizer, Vocabulary(text_tokenizer.size, image_codes=10))


def said(source: StoredSource, index: int, seed: int = 0) -> list:
  """The texts of a record, and of its images the color in the middle with the shape; marked where they are learnt."""
  told = []
  for turn in source.record(index, np.random.default_rng(seed)):
    if isinstance(turn, ImageTurn):
      height, width = turn.image.shape[:2]
      told.append((tuple(turn.image[height // 2, width // 2].tolist()), (height, width), turn.is_target))
    else:
      told.append((turn.text, turn.is_target))
  return told


# ------------------------------------------------------------------------------------------------------- records


def test_a_captioned_picture_is_asked_for_by_each_of_its_captions_in_turn(folder, text_tokenizer):
  source = opened(folder, text_tokenizer)
  told = [said(source, 0, seed) for seed in range(40)]
  assert {texts[0] for texts in told} == {("a cat", False), ("a tabby cat that sleeps", False), ("кот", False)}
  assert all(texts[1:] == [(RED, (16, 16), True)] for texts in told)
  assert said(source, 0, 3) == said(source, 0, 3)


def test_what_the_user_shows_is_given_and_what_the_assistant_does_is_learnt(folder, text_tokenizer):
  source = opened(folder, text_tokenizer, sizes=(SQUARE,))
  edit = said(source, 3)
  assert edit[0] == (RED, (16, 16), False) and edit[1][0] in EDIT.turns[0].content[1].texts and not edit[1][1]
  assert edit[2:] == [("here it is", True), (BLUE, (16, 16), True)]
  asked = said(source, 4)
  assert asked[:2] == [(RED, (16, 16), False), ("which color?", False)] and asked[2][1]
  assert said(source, 5) == [("it was a dark and stormy night; " * 5, True)]


def test_a_picture_has_the_bucket_of_its_proportions(folder, text_tokenizer):
  source = opened(folder, text_tokenizer)
  assert source.catalogue().buckets.tolist() == [0, 1, 2, 0, 0, 0, 0]
  assert said(source, 1)[1][1] == WIDE.pixels and said(source, 2)[1][1] == TALL.pixels
  assert opened(folder, text_tokenizer, sizes=(SQUARE,)).catalogue().buckets is None


def test_a_picture_of_which_part_is_cut_off_or_all_is_shown_as_the_config_says(tmp_path, text_tokenizer):
  stored_records.write(tmp_path / "set", {"train": [captioned("banner", ["a banner"], picture(RED, 64, 16))]})

  def read(**changes):
    source = opened(tmp_path / "set", text_tokenizer, sizes=(SQUARE,), **changes)
    return source.record(0, np.random.default_rng(0))[1].image

  assert (read(fit="crop") == RED).all() and (read(fit="stretch") == RED).all()
  padded = read(fit="pad", background=(1, 2, 3))
  assert (padded[6:10] == RED).all() and (padded[:6] == (1, 2, 3)).all()


def test_a_rotten_picture_is_an_error_that_says_why_and_its_place_is_its_key(folder, text_tokenizer):
  source = opened(folder, text_tokenizer)
  with pytest.raises(BadImage, match="no picture: the header of the picture is broken or cut off"):
    source.record(6, np.random.default_rng(0))
  assert source.key(6) == "rotten.png" and source.key(0) == "cat.png"


def test_a_record_that_is_damaged_on_disk_is_named_by_its_shard(tmp_path, text_tokenizer):
  stored = stored_records.write(tmp_path / "set", {"train": RECORDS[:6]}, shard_records=3)
  shard = tmp_path / "set" / stored.shards("train")[1].file
  content = bytearray(shard.read_bytes())
  place = content.index(to_bytes(RECORDS[5])[:20])  # of the last record, stored as it is
  content[place : place + 40] = bytes(40)
  shard.write_bytes(content)
  source = opened(tmp_path / "set", text_tokenizer)
  with pytest.raises(ValueError):
    source.record(5, np.random.default_rng(0))
  assert source.key(5) == f"{shard.name}:2" and source.key(3) == "edit"


# ------------------------------------------------------------------------------------------------------ templates


def test_templates_go_around_captions_and_nothing_else(folder, text_tokenizer):
  source = opened(folder, text_tokenizer, templates=("a photo of {}", "{}, in {braces}".replace("{braces}", "style")))
  first = {said(source, 1, seed)[0][0] for seed in range(20)}
  assert first == {"a photo of a lake", "a lake, in style"}
  assert {said(source, 4, seed)[1][0] for seed in range(20)} == {"which color?"}
  assert said(source, 5)[0][0].startswith("it was a dark")


def test_braces_of_a_caption_stay(tmp_path, text_tokenizer):
  stored_records.write(tmp_path / "set", {"train": [captioned("a", ["a {} or {0} or {x}"], picture())]})
  assert said(opened(tmp_path / "set", text_tokenizer, templates=("see {}",)), 0)[0][0] == "see a {} or {0} or {x}"


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"templates": ()}, 'data.source.templates=() say nothing; ("{}",) is the caption alone'),
    ({"templates": ("a photo",)}, "data.source.templates: 'a photo' must have {} once, where the caption goes"),
    ({"templates": ("{} and {}",)}, "must have {} once"),
    ({"fit": "zoom"}, "data.source.fit='zoom' must be one of crop, pad, stretch"),
    ({"background": (1, 2)}, "data.source.background=(1, 2) must be red, green and blue"),
    ({"background": (1, 2, 256)}, "background[2]=256 must be from 0 to 255"),
  ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
  with pytest.raises(SettingsError) as refused:
    settings_of("somewhere", **changes)
  assert message in str(refused.value)


# -------------------------------------------------------------------------------------------------------- lengths


class Some:
  """Records in memory."""

  def __init__(self, records):
    self.records = records

  def index(self):
    rows = [(0, 0, len(record.images), 16, 16, turn_tokens(record.turns)) for record in self.records]
    return np.array(rows, INDEX)

  def text_tokens(self, text_tokenizer):
    return np.array([count_tokens(record.turns, text_tokenizer) for record in self.records], np.int32)

  def read(self, index):
    return self.records[index]


def lengths(source: StoredSource, text_tokenizer, draws: int = 6) -> np.ndarray:
  """(records, draws): the tokens each one has."""
  vocabulary = Vocabulary(text_tokenizer.size, image_codes=10)

  def encoded(index: int, seed: int) -> int:
    turns = source.record(index, np.random.default_rng(seed))
    return len(conversation.encode(turns, text_tokenizer, vocabulary, SQUARE).tokens)

  return np.array([[encoded(i, seed) for seed in range(draws)] for i in range(len(source))])


class Gpt:
  """A byte-level BPE as GPT-2's: no space is put before a text, so that its first word is another than elsewhere."""

  fingerprint = ""

  def __init__(self, texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=sorted(alphabet), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    self._tokenizer, self.size = tokenizer, 400

  def encode(self, text):
    return self._tokenizer.encode(text).ids


WORDS = ["cat", "cats", "a", "!!!!", "!?!?.", " ", "  ", "'s", "2024", "naïve", "🐈", "кот", "\n", "cat!", "ing", "of"]
TOKENIZERS = {"builtin": TextTokenizer.load(), "gpt": Gpt([" ".join(WORDS) * 3, "cat!!!!ing cats' s of of"])}
texts = st.lists(st.sampled_from(WORDS) | st.text(max_size=6), max_size=6).map("".join)


@settings(max_examples=60, deadline=None)
@given(
  st.sampled_from(list(TOKENIZERS)),
  st.lists(texts, min_size=1, max_size=3),
  st.lists(st.tuples(texts, texts), min_size=1, max_size=2),
)
def test_no_draw_of_a_record_is_longer_than_its_bound_whatever_caption_template_and_vocabulary(name, captions, around):
  captions = [caption.encode("utf-8", "replace").decode() for caption in captions]
  pieces = [f"{before}{{}}{after}" for before, after in around if "{}" not in f"{before}|{after}"]
  tokenizer, templates = TOKENIZERS[name], tuple(piece for piece in pieces if piece.count("{}") == 1) or ("{}",)
  stored = Some([captioned("a", captions, picture()), EDIT, ASKED, text_alone("b", captions[0])])
  source = StoredSource(StoredSettings("x", templates, "crop", WHITE), stored, (SQUARE,), tokenizer)
  catalogue = source.catalogue()
  assert (lengths(source, tokenizer).max(1) <= catalogue.tokens).all()
  assert catalogue.images.tolist() == [1, 2, 1, 0]


@pytest.mark.parametrize("templates", [("{}",), ("a photo of {}", "{} in flat style", "{}.")])
def test_bounds_are_not_idle(templates, text_tokenizer):
  captions = [["a red cat on a mat", "a cat"], ["a blue star above a green circle"], ["two dogs that play"]]
  stored = Some([captioned("a", own, picture()) for own in captions])
  source = StoredSource(StoredSettings("x", templates, "crop", WHITE), stored, (SQUARE,), text_tokenizer)
  longest, bounds = lengths(source, text_tokenizer, draws=40).max(1), source.catalogue().tokens
  assert (bounds - longest <= (0 if templates == ("{}",) else 2)).all()


def test_a_template_is_kept_wherever_words_stay_apart(text_tokenizer):
  captions = ["a red cat", "Two dogs, at night!", "naïve кот 🐈", "ink drawing of 12 ships"]
  stored = Some([captioned("a", [caption], picture()) for caption in captions])
  for template in ("a photo of {}", "{} in flat style", "“{}”, he said", "{}."):
    source = StoredSource(StoredSettings("x", (template,), "crop", WHITE), stored, (SQUARE,), text_tokenizer)
    assert [said(source, i)[0][0] for i in range(4)] == [template.replace("{}", caption) for caption in captions]


def test_a_million_records_are_catalogued_in_a_moment(text_tokenizer):
  index = np.zeros(10**6, INDEX)
  rng = np.random.default_rng(0)
  index["images"], index["text_tokens"] = 1, rng.integers(5, 80, 10**6)
  index["turn_tokens"] = 3  # <user> <assistant> <eos>
  index["height"], index["width"] = rng.integers(10, 4000, (2, 10**6))

  class Million(Some):
    def index(self):
      return self.records

    def text_tokens(self, text_tokenizer):
      return self.records["text_tokens"]

  source = StoredSource(StoredSettings("x", ("{}",), "crop", WHITE), Million(index), SIZES, text_tokenizer)
  start = time.monotonic()
  catalogue = source.catalogue()
  assert time.monotonic() - start < 2  # 0.1 s where nothing else runs
  assert len(source) == 10**6 and catalogue.tokens.nbytes <= 4 * 10**6 and catalogue.buckets.nbytes <= 10**6
  chosen = rng.integers(0, 10**6, 200)
  for i in chosen:
    aspects = [abs(np.log(index["width"][i] / index["height"][i] * s.pixels[0] / s.pixels[1])) for s in SIZES]
    assert aspects[catalogue.buckets[i]] <= min(aspects) + 1e-5
    assert catalogue.tokens[i] == conversation.length(index["text_tokens"][i], 1, SIZES[catalogue.buckets[i]])


def test_of_proportions_as_near_the_first_is_taken_and_without_a_picture_too():
  assert nearest(0, 0, SIZES) == 0
  assert nearest(100, 100, (WIDE, TALL)) == 0
  assert nearest(np.array([10, 0]), np.array([1000, 0]), SIZES).tolist() == [1, 0]


# -------------------------------------------------------------------------------------------------------- folders


def test_without_a_path_the_error_says_where_to_get_one(text_tokenizer):
  with pytest.raises(SettingsError, match=r"set config.data.source.path to a folder that launch.prepare has made"):
    opened("", text_tokenizer)


def test_a_folder_of_pictures_is_not_yet_prepared(tmp_path, text_tokenizer):
  (tmp_path / "cat.png").write_bytes(picture())
  for path in (tmp_path, tmp_path / "nowhere"):
    with pytest.raises(UserError, match=r"launch.prepare"):
      opened(path, text_tokenizer)


def test_without_held_out_records_training_works_and_evaluation_says_what_to_do(tmp_path, text_tokenizer):
  stored_records.write(tmp_path / "set", {"train": RECORDS[:2]})
  assert len(opened(tmp_path / "set", text_tokenizer)) == 2
  test = opened(tmp_path / "set", text_tokenizer, "test")
  assert len(test) == len(test.catalogue().tokens) == 0
  with pytest.raises(UserError, match=r"holds out no records .* --held_out=0.05"):
    test.distinct()


def test_without_records_to_train_on_it_is_refused(tmp_path, text_tokenizer):
  stored_records.write(tmp_path / "set", {"test": RECORDS[:2]})
  with pytest.raises(UserError, match=r"holds out all of its records; .* smaller --held_out"):
    opened(tmp_path / "set", text_tokenizer)


def test_a_path_is_typed_as_any_other(folder, text_tokenizer, monkeypatch):
  monkeypatch.setenv("HOME", str(folder.parent))
  monkeypatch.chdir(folder.parent)
  for typed in ("~/mine", "mine", Path("mine/")):
    assert len(opened(typed, text_tokenizer)) == len(RECORDS)


def test_several_folders_with_weights_are_a_mixture(folder, tmp_path, text_tokenizer):
  stored_records.write(tmp_path / "texts", {"train": RECORDS[:2]})
  both = opened(f"{folder}:0.3,{tmp_path}/texts:.7", text_tokenizer)
  assert both.catalogue().parts == ((len(RECORDS), 0.3), (2, 0.7))
  assert both.key(len(RECORDS) + 1) == f"sources[1]: {RECORDS[1].key}"


def test_a_folder_that_is_called_like_a_weight_is_a_folder(folder, tmp_path, text_tokenizer):
  stored_records.write(tmp_path / "mine:0.3,yours:1", {"train": RECORDS[:2]})
  assert len(opened(tmp_path / "mine:0.3,yours:1", text_tokenizer)) == 2
  with pytest.raises(UserError, match=r"mine:0\.3,yours"):
    opened(f"{tmp_path}/mine:0.3,yours", text_tokenizer)  # no weight: a path, and there is none


def test_weights_of_nothing_are_refused(folder, text_tokenizer):
  with pytest.raises(SettingsError, match=r"weights\[1\]=0.0"):
    opened(f"{folder}:1,{folder}:0", text_tokenizer)


def test_worker_processes_get_a_copy_that_reads_the_same(folder, text_tokenizer):
  source = opened(folder, text_tokenizer, templates=("see {}",))
  copy = pickle.loads(pickle.dumps(source))
  assert [said(copy, i) for i in range(6)] == [said(source, i) for i in range(6)]
  assert len(pickle.dumps(source)) < 200_000


# ---------------------------------------------------------------------------------------------------------- tasks


def test_of_each_kind_of_conversation_the_answer_is_known(folder, text_tokenizer):
  source = opened(folder, text_tokenizer, sizes=(SQUARE,))
  answers = []
  for i in range(6):
    turns, task = source.record(i, np.random.default_rng(0)), source.task(i)
    target = task.target(turns)
    place = turns.index(target)
    assert task in source.tasks and target.is_target and list(task.prompt(turns)) == turns[:place]
    answers.append((type(target).__name__, place))
  assert answers == [("ImageTurn", 1)] * 3 + [("ImageTurn", 3), ("TextTurn", 2), ("TextTurn", 0)]


def test_without_its_condition_a_picture_has_no_request_an_edit_keeps_its_picture_and_text_stays(
  folder, text_tokenizer
):
  source = opened(folder, text_tokenizer, sizes=(SQUARE,))

  def left(i):
    turns = source.record(i, np.random.default_rng(0))
    left = source.task(i).without_condition(turns)
    assert [turn.role for turn in left] == [turn.role for turn in turns]
    return [bool(turn.text) if isinstance(turn, TextTurn) else "image" for turn in left]

  assert left(0) == [False, "image"] and left(3) == ["image", False, False, "image"]
  assert left(4) == ["image", True, True] and left(5) == [True]


def test_without_held_out_records_sheets_show_those_that_are_trained_on(tmp_path, text_tokenizer, caplog):
  stored_records.write(tmp_path / "set", {"train": RECORDS[:3]})
  config = small.config()
  config.data.source = ConfigDict(
    dict(name="records", path=str(tmp_path / "set"), templates=("{}",), fit="crop", background=WHITE)
  )
  system = OmniSystem(from_config(config), text_tokenizer.size)
  sources = [opened(tmp_path / "set", text_tokenizer, split, sizes=system.settings.buckets) for split in SPLITS]
  sheets = SampleSheets(system, text_tokenizer, sources, tmp_path)
  assert list(sheets._examples) == ["trained"] and len(sheets._examples["trained"].captions) == 2
