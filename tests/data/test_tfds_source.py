"""A data set of TFDS as a source of training, without a folder in between."""

import dataclasses
import pickle
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from ml_collections import ConfigDict
from PIL import Image

from omniimage.data import conversation
from omniimage.data.images import BadImage
from omniimage.data.records import BadRecord
from omniimage.data.sources import open_source
from omniimage.data.sources import tfds as module
from omniimage.data.sources.tfds import TfdsSettings
from omniimage.data.text import TextTokenizer
from omniimage.errors import SettingsError, UserError
from omniimage.settings import from_config
from omniimage.size import Size
from omniimage.vocabulary import Vocabulary
from tests import small
from tests.stored_records import picture
from tests.tfds_sets import make

SQUARE, WIDE = Size(2, 2, 8), Size(2, 4, 8)
ROOT = None  # of the data sets that are there
PLACES = 60  # examples of the data set that does not say what is held out


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp("tfds")
  image = tfds.features.Image()
  lying = Image.Exif()
  lying[0x0112] = 6
  label = tfds.features.ClassLabel(names=["airplane", "car"])
  rows = [{"image": picture((40 * i, 0, 0)), "label": i % 2} for i in range(4)]
  make(root, "cifar10", {"image": image, "label": label}, {"train": rows[:3], "test": rows[3:]})
  said = tfds.features.Sequence({"text": tfds.features.Text()})
  coco = [
    {"image": picture((1, 0, 0), 64, 32, "JPEG"), "captions": [{"text": "a cat"}, {"text": "a tabby that sleeps"}]},
    {"image": picture((2, 0, 0), 32, 64, "JPEG", exif=lying), "captions": [{"text": "a lake"}]},
    {"image": picture((3, 0, 0)), "captions": []},
    {"image": picture((4, 0, 0))[:50], "captions": [{"text": "rotten"}]},
    {"image": b"no picture", "captions": [{"text": "no picture"}]},
  ]
  make(root, "coco_captions", {"image": image, "captions": said}, {"train": coco, "validation": coco[:1]})
  places = [{"image": picture((i, 0, 0)), "name": f"place {i}"} for i in range(PLACES)]
  make(root, "places", {"image": image, "name": tfds.features.Text()}, {"photos": places})
  return root


@pytest.fixture(autouse=True)
def cache(root, tmp_path, monkeypatch):
  monkeypatch.setitem(globals(), "ROOT", root)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  return tmp_path / "cache" / "omniimage"


@pytest.fixture(scope="module")
def text_tokenizer():
  return TextTokenizer.load()


def opened(text_tokenizer, dataset, split="train", mapping=(), sizes=(SQUARE, WIDE), templates=("{}",)):
  dataset = str(ROOT / dataset) if dataset and (ROOT / dataset).exists() else dataset
  source = TfdsSettings("tfds", templates, "crop", (255, 255, 255), dataset, mapping)
  data = dataclasses.replace(small.settings().data, source=source)
  return open_source(data, split, sizes, text_tokenizer, Vocabulary(text_tokenizer.size, image_codes=10))


def told(source, index: int, seed: int = 0):
  text, image = source.record(index, np.random.default_rng(seed))
  return text.text, round(image.image[..., 0].mean() / 40)


def test_a_recipe_makes_captioned_pictures_of_a_well_known_data_set(text_tokenizer):
  train, test = (opened(text_tokenizer, "cifar10", split) for split in ("train", "test"))
  assert [told(train, i) for i in range(len(train))] == [("airplane", 0), ("car", 1), ("airplane", 2)]
  assert [told(test, i) for i in range(len(test))] == [("car", 3)]
  assert test.key(0) == "cifar10/test:0" and "tensorflow" not in sys.modules


def test_a_config_names_it(text_tokenizer):
  config = small.config()
  config.data.source = ConfigDict(
    dict(name="tfds", dataset="coco", mapping=("a=user",), templates=("{}",), fit="pad", background=(0, 0, 0))
  )
  assert from_config(config).data.source == TfdsSettings("tfds", ("{}",), "pad", (0, 0, 0), "coco", ("a=user",))
  config.data.source.background = (0, 0, 300)
  with pytest.raises(SettingsError, match=r"config.data.source.background\[2\]=300 must be from 0 to 255"):
    from_config(config)


def test_packing_is_told_lengths_and_upright_sizes(text_tokenizer):
  source = opened(text_tokenizer, "coco_captions")
  catalogue = source.catalogue()
  assert catalogue.buckets.tolist() == [1, 1, 0, 0, 0] and catalogue.images.tolist() == [1, 1, 0, 1, 1]
  vocabulary = Vocabulary(text_tokenizer.size, image_codes=10)
  for i in (0, 1):
    turns = [source.record(i, np.random.default_rng(seed)) for seed in range(20)]
    found = [len(conversation.encode(own, text_tokenizer, vocabulary, WIDE).tokens) for own in turns]
    assert max(found) == catalogue.tokens[i] and all(own[1].image.shape == (16, 32, 3) for own in turns)
  assert len({told(source, 0, seed)[0] for seed in range(20)}) == 2


def test_what_is_no_record_says_why_and_where_it_is(text_tokenizer):
  source = opened(text_tokenizer, "coco_captions")
  for index, kind, why in (
    (2, BadRecord, "no caption"),
    (3, BadImage, "truncated PNG"),
    (4, BadImage, "no picture: text"),
  ):
    with pytest.raises(kind, match=why):
      source.record(index, np.random.default_rng(0))
    assert source.key(index) == f"coco_captions/train:{index}"


def test_without_a_test_split_pictures_are_held_out_by_their_hash(text_tokenizer):
  def names(split):
    source = opened(text_tokenizer, "places", split, ("name=user", "image=assistant"))
    return [told(source, i)[0] for i in range(len(source))]

  train, test = names("train"), names("test")
  assert sorted(train + test) == sorted(f"place {i}" for i in range(PLACES)) and 0 < len(test) < 12
  assert names("test") == test


def test_a_mapping_says_what_features_are(text_tokenizer):
  source = opened(text_tokenizer, "cifar10", mapping=("a photo of a {label}=user", "image=assistant"))
  assert told(source, 1)[0] == "a photo of a car"
  reverse = opened(text_tokenizer, "cifar10", mapping=("image=user", "label=assistant"))
  assert [turn.is_target for turn in reverse.record(0, np.random.default_rng(0))] == [False, True]


@pytest.mark.parametrize(
  "dataset, mapping, said",
  [
    ("", (), "data.source.dataset is empty; set config.data.source.dataset"),
    ("oxford_flowers102", (), "is no TFDS data set on this disk"),
    ("cifar10", ("label",), "data.source.mapping: 'label' must be FEATURE=ROLE"),
    ("cifar10", ("label=",), "data.source.mapping: 'label=' must be FEATURE=ROLE"),
    ("cifar10", ("label=painter",), "config.data.source.mapping: a feature is mapped to 'painter'"),
    ("cifar10", ("labels=user",), "label"),
  ],
)
def test_what_cannot_be_read_is_one_line(text_tokenizer, dataset, mapping, said):
  with pytest.raises((UserError, SettingsError)) as refused:
    opened(text_tokenizer, dataset, mapping=mapping)
  assert said in str(refused.value) and "\n" not in str(refused.value)


def test_examples_are_read_once_and_what_was_found_is_kept(text_tokenizer, cache, monkeypatch):
  first = opened(text_tokenizer, "cifar10").catalogue()
  assert len(list(cache.iterdir())) == 2

  def again(*args):
    raise AssertionError("read again")

  with monkeypatch.context() as patch:
    patch.setattr(module, "_made", again)
    assert np.array_equal(opened(text_tokenizer, "cifar10").catalogue().tokens, first.tokens)
    with pytest.raises(AssertionError):  # another mapping has other texts
      opened(text_tokenizer, "cifar10", mapping=("a {label}=user", "image=assistant"))
  for file in cache.iterdir():
    file.write_bytes(file.read_bytes()[:-3])  # as a full disk leaves it
  module._loaded.cache_clear()
  assert np.array_equal(opened(text_tokenizer, "cifar10").catalogue().tokens, first.tokens)


def test_a_cache_that_cannot_be_written_costs_only_time(text_tokenizer, tmp_path, monkeypatch):
  (tmp_path / "file").write_text("")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
  source = opened(text_tokenizer, "cifar10")
  assert told(source, 1) == ("car", 1) and told(pickle.loads(pickle.dumps(source)), 1) == ("car", 1)


def test_worker_processes_get_a_copy_that_reads_the_same(text_tokenizer):
  source = opened(text_tokenizer, "cifar10", templates=("see {}",))
  assert told(pickle.loads(pickle.dumps(source)), 2) == told(source, 2) == ("see airplane", 2)


def test_the_directory_of_its_version_will_do_too(text_tokenizer):
  assert len(opened(text_tokenizer, "cifar10/1.0.0")) == 3
