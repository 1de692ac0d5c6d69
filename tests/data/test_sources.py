"""The sources that ship with the package: their records, and what they promise of them."""

import dataclasses
import itertools
import subprocess
import sys

import numpy as np
import pytest

from omniimage.data import conversation, emoji
from omniimage.data.batches import Batches
from omniimage.data.scenes.tasks import TASKS
from omniimage.data.sources import open_source
from omniimage.data.sources.emoji import EmojiSettings, EmojiSource
from omniimage.data.sources.scenes import ScenesSettings, ScenesSource
from omniimage.data.text import TextTokenizer
from omniimage.settings import DataSettings, SettingsError
from omniimage.size import Size
from omniimage.vocabulary import Vocabulary

SIZE = Size(rows=4, columns=4, pixels_per_token=8)
SCENES = ScenesSettings("scenes", grid=2, min_objects=1, max_objects=4, tasks=("text_to_image",))


@pytest.fixture(scope="module")
def text_tokenizer():
  return TextTokenizer.load()


def open_(text_tokenizer, source=SCENES, split="train", size=SIZE, text_size=None):
  data = DataSettings(source, size.side, ("1:1",), 96, 5, 16, 0.1, "builtin", 1.0, workers=0)
  vocabulary = Vocabulary(text_size or text_tokenizer.size, image_codes=10)
  return open_source(data, split, (size,), text_tokenizer, vocabulary), vocabulary


@pytest.mark.parametrize(
  "source",
  [
    SCENES,
    ScenesSettings("scenes", grid=5, min_objects=20, max_objects=25, tasks=("text_to_image",)),
    EmojiSettings("emoji"),
  ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_no_record_is_longer_than_its_bound_and_the_bound_is_not_idle(text_tokenizer, source, split):
  opened, vocabulary = open_(text_tokenizer, source, split)
  catalogue = opened.catalogue()
  tokens, images = catalogue.tokens, catalogue.images
  assert len(tokens) == len(images) == len(opened)
  rng = np.random.default_rng(0)
  drawn = rng.integers(len(opened), size=300).tolist()
  found = [len(conversation.encode(opened.record(i, rng), text_tokenizer, vocabulary, SIZE).tokens) for i in drawn]
  assert (found <= tokens[drawn]).all() and (images == 1).all()
  assert np.mean(found) > 0.75 * tokens[drawn].mean()


def test_scenes_are_a_caption_and_a_target_picture(text_tokenizer):
  scenes, _ = open_(text_tokenizer)
  assert isinstance(scenes, ScenesSource) and len(scenes) == 2**20
  text, image = scenes.record(3, np.random.default_rng(0))
  assert not text.is_target and image.is_target and image.image.shape == (32, 32, 3)
  tokens = scenes.catalogue().tokens
  assert (np.diff(tokens[:4]) > 0).all() and np.array_equal(tokens[:4], tokens[4:8])


def mixed(*tasks: str) -> ScenesSettings:
  return dataclasses.replace(SCENES, tasks=tasks)


def test_tasks_take_turns_so_that_any_prefix_is_mixed(text_tokenizer):
  scenes, _ = open_(text_tokenizer, mixed("text_to_image", "edit", "text_to_image", "conversation"))
  names = [type(scenes.task(i)).__name__ for i in range(6)]
  assert names == ["TextToImage", "Edit", "TextToImage", "Conversation", "TextToImage", "Edit"]
  assert len(scenes.tasks) == 3 and all(scenes.task(i) in scenes.tasks for i in range(8))
  assert scenes.task(0) is scenes.task(2) is scenes.task(4), "however often its name stands there"


def test_every_task_of_a_mixture_goes_through_the_same_scenes(text_tokenizer):
  alone, _ = open_(text_tokenizer)
  scenes, _ = open_(text_tokenizer, mixed("text_to_image", "caption", "text_to_image"))

  def shown(source, index):
    return next(turn.image for turn in source.record(index, np.random.default_rng(0)) if hasattr(turn, "image"))

  expected = [shown(alone, i).tobytes() for i in range(8)]
  assert [shown(scenes, i).tobytes() for i in (0, 2, 3, 5, 6, 8)] == expected[:6]
  assert [shown(scenes, i).tobytes() for i in (1, 4, 7, 10)] == expected[:4]


@pytest.mark.parametrize("grid", [2, 3, 4, 5])
@pytest.mark.parametrize("tasks", [tuple(TASKS), ("edit",), ("conversation", "questions")])
def test_what_a_mixture_promises_of_its_records_holds(text_tokenizer, grid, tasks):
  source = ScenesSettings("scenes", grid=grid, min_objects=1, max_objects=grid**2, tasks=tasks)
  opened, vocabulary = open_(text_tokenizer, source, size=Size(5, 5, 8))
  catalogue, rng = opened.catalogue(), np.random.default_rng(0)
  drawn = np.arange(240)
  encoded = [conversation.encode(opened.record(i, rng), text_tokenizer, vocabulary, Size(5, 5, 8)) for i in drawn]
  tokens, images = [len(one.tokens) for one in encoded], [len(one.images) for one in encoded]
  assert (tokens <= catalogue.tokens[drawn]).all() and (images == catalogue.images[drawn]).all()
  # Objects are compared up to the first word that they are not: most answers are shorter than they may become.
  assert np.sum(tokens) > (0.45 if "questions" in tasks else 0.75) * catalogue.tokens[drawn].sum()


def test_a_mixture_is_packed_with_every_task_in_its_first_block(text_tokenizer):
  source = mixed(*TASKS)
  opened, vocabulary = open_(text_tokenizer, source)
  data = DataSettings(source, SIZE.side, ("1:1",), 256, 8, 16, 0.1, "builtin", 1.0, workers=0)
  batches = Batches(opened, data, vocabulary, text_tokenizer, (SIZE,), seed=0)
  batch = batches.batch(0, 16)
  assert not batches.bad_records
  assert len({type(opened.task(record)) for row in batches.record_ids(0, 16) for record in row}) == len(TASKS)
  assert not batch["image_is_target"][batch["image_mask"]].all() and batch["image_is_target"].any()


def test_what_is_evaluated_of_a_mixture_is_no_scene_twice_for_a_task(text_tokenizer):
  tasks = ("text_to_image", "caption", "text_to_image")
  one = ScenesSettings("scenes", grid=2, min_objects=1, max_objects=1, tasks=tasks)
  scenes, _ = open_(text_tokenizer, one, "test")
  records = list(scenes.distinct())
  assert records == sorted(records) and len(records) == len(set(records)) == 2 * 24
  for task in scenes.tasks:
    own = [scenes.record(i, np.random.default_rng(0)) for i in records if scenes.task(i) is task]
    assert len({turn.image.tobytes() for turns in own for turn in turns if hasattr(turn, "image")}) == len(own) == 24


def test_tasks_that_there_are_not_are_named_with_those_there_are():
  with pytest.raises(SettingsError, match=r"data.source.tasks has 'draw', but .* are text_to_image, caption, "):
    mixed("text_to_image", "draw")
  with pytest.raises(SettingsError, match=r"data.source.tasks is empty: the tasks over scenes are text_to_image"):
    mixed()


class LetterTokens:
  """A text tokenizer whose ids are letters, for which words are as long as they are."""

  size = 256

  def encode(self, text: str) -> list[int]:
    return list(text.encode())


@pytest.mark.parametrize("task", TASKS)
def test_bounds_hold_for_a_vocabulary_of_letters(task):
  opened, vocabulary = open_(LetterTokens(), mixed(task))
  rng, tokens = np.random.default_rng(0), opened.catalogue().tokens
  found = [len(conversation.encode(opened.record(i, rng), LetterTokens(), vocabulary, SIZE).tokens) for i in range(200)]
  least = 0.4 if task == "questions" else 0.5  # three that are all as long as they may be are rare
  assert (found <= tokens[:200]).all() and np.sum(found) > least * tokens[:200].sum()


def test_emoji_are_resized_and_never_enlarged(text_tokenizer):
  small, _ = open_(text_tokenizer, EmojiSettings("emoji"), size=SIZE)
  full, _ = open_(text_tokenizer, EmojiSettings("emoji"), size=Size(8, 8, 8))
  assert isinstance(small, EmojiSource) and len(small) == len(emoji.indices("train"))
  rng = np.random.default_rng(0)
  for index in (0, 1000):
    halved = small.record(index, rng)[1].image.astype(float)
    blocks = full.record(index, rng)[1].image.reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert halved.shape == (32, 32, 3) and abs(halved - blocks).mean() < 6
  with pytest.raises(SettingsError, match=r"data.image_size=128.*64 or less"):
    open_(text_tokenizer, EmojiSettings("emoji"), size=Size(16, 16, 8))


def test_what_is_evaluated_first_is_not_shown_twice(text_tokenizer):
  scenes, _ = open_(
    text_tokenizer, ScenesSettings("scenes", grid=2, min_objects=1, max_objects=1, tasks=("text_to_image",)), "test"
  )
  shown = [scenes.record(i, np.random.default_rng(0))[1].image.tobytes() for i in scenes.distinct()]
  assert len(shown) == len(set(shown)) == 24 and list(itertools.islice(scenes.distinct(), 2)) == [0, 1]
  emojis, _ = open_(text_tokenizer, EmojiSettings("emoji"), "test")
  assert list(emojis.distinct()) == list(range(len(emojis)))


def test_a_config_is_read_without_jax_or_any_data():
  slow = "jax", "grain", "tokenizers", "flax"
  code = (
    "import sys, omniimage.data.sources; print('omniimage.settings' in sys.modules)\n"
    f"import omniimage.settings; print([module for module in {slow} if module in sys.modules])\n"
    "from omniimage.data import emoji; print(emoji.load.cache_info().currsize)"
  )
  said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
  assert said == "False\n[]\n0\n"


def test_sources_of_an_unknown_split_or_a_vocabulary_too_small_are_errors(text_tokenizer):
  with pytest.raises(ValueError, match=r"no split 'valid'; give one of train, test"):
    open_(text_tokenizer, split="valid")
  with pytest.raises(SettingsError, match=r"data.vocabulary='builtin' has \d+ tokens, .* only 100 text ids"):
    open_(text_tokenizer, text_size=100)


@pytest.mark.parametrize(
  ("source", "size", "sequence_length", "images_per_row"),
  [(SCENES, SIZE, 256, 6), (EmojiSettings("emoji"), Size(8, 8, 8), 512, 6)],
)
def test_the_shipped_sources_fill_their_rows(text_tokenizer, source, size, sequence_length, images_per_row):
  opened, vocabulary = open_(text_tokenizer, source, size=size)
  data = DataSettings(source, size.side, ("1:1",), sequence_length, images_per_row, 256, 0.1, "builtin", 1.0, workers=0)
  batches = Batches(opened, data, vocabulary, text_tokenizer, (size,), seed=0)
  assert batches.statistics(0, 24)["packing_fill"] > 0.9 and batches.statistics(0, 24)["packing_dropped"] < 0.02
  batch = batches.batch(0, 24)
  assert (batch["segments"] > 0).mean() > 0.75 and not batches.bad_records
  shown = batch["images"][batch["image_mask"]]
  assert len({image.tobytes() for image in shown}) > 0.95 * len(shown) > 100
