import pickle
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from omniimage.data.formats import open_format
from omniimage.data.formats.format import Given
from omniimage.errors import UserError
from tests.data.formats.made import captions, picture, problems, read, said
from tests.tfds_sets import make


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp("tfds")
  image = tfds.features.Image()
  label = tfds.features.ClassLabel(names=["airplane", "car"])
  rows = [{"image": picture(i), "label": i % 2} for i in range(4)]
  make(root, "cifar10", {"image": image, "label": label}, {"train": rows[:3], "test": rows[3:]})
  said = tfds.features.Sequence({"text": tfds.features.Text(), "id": tfds.features.Scalar(np.int64)})
  coco = [
    {"image": picture(1), "captions": [{"text": "a cat", "id": 1}, {"text": " a tabby ", "id": 2}]},
    {"image": picture(2), "captions": []},
    {"image": picture(3), "captions": [{"text": b"caf\xe9", "id": 3}]},
  ]
  make(root, "coco_captions", {"image": image, "captions": said}, {"train": coco})
  vqa = {"image": image, "mask": image, "question": tfds.features.Text(), "answer": tfds.features.Text()}
  make(root, "vqa", vqa, {"train": [{"image": picture(1), "mask": picture(2), "question": "What?", "answer": "A cat"}]})
  return root


def test_labels_are_the_names_of_their_classes(root):
  found = read(root / "cifar10")
  assert captions(found) == {
    "cifar10/train:0": ("airplane",), "cifar10/train:1": ("car",), "cifar10/train:2": ("airplane",),
    "cifar10/test:0": ("car",),
  }  # fmt: skip
  assert [row.split for row in found] == ["train"] * 3 + ["test"]
  assert found[1].record.images == (picture(1),)  # the encoded file, as it came
  assert "tensorflow" not in sys.modules


def test_captions_in_a_sequence_are_alternatives(root):
  found = read(root / "coco_captions/1.0.0")
  assert captions(found) == {"coco_captions/train:0": ("a cat", "a tabby")}
  assert "no caption" in problems(found)["coco_captions/train:1"]
  assert "not UTF-8" in problems(found)["coco_captions/train:2"]


def test_a_mapping_says_which_turn_each_feature_is(root):
  found = read(
    root / "vqa", mapping={"image": "user", "{question}": "user", "answer": "assistant", "mask": "assistant"}
  )
  assert said(found[0]) == [("user", ["<0>", "What?"]), ("assistant", ["A cat", "<1>"])]
  assert found[0].record.images == (picture(1), picture(2))
  assert captions(read(root / "cifar10", mapping={"a photo of a {label}": "user", "image": "assistant"}))[
    "cifar10/train:1"
  ] == ("a photo of a car",)


def test_columns_name_features_too(root):
  found = read(root / "vqa", image_column="mask", caption_columns=["answer", "question"])
  assert captions(found) == {"vqa/train:0": ("A cat", "What?")} and found[0].record.images == (picture(2),)


def test_a_wrong_mapping_names_the_features(root):
  with pytest.raises(UserError, match=r"vqa has the features answer, image, mask, question.*--map"):
    read(root / "vqa")
  with pytest.raises(UserError, match=r"no 'questions'.*answer, question"):
    read(root / "vqa", mapping={"questions": "user"})
  with pytest.raises(UserError, match=r"'painter'; expected user or assistant"):
    read(root / "vqa", mapping={"question": "painter"})


def test_a_data_set_is_found_by_its_name_where_tfds_keeps_them(root, monkeypatch):
  monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(root))
  assert len(read("tfds:cifar10")) == 4 and len(read("cifar10")) == 4 and len(read("tfds:cifar10:1.0.0")) == 4


def test_nothing_is_downloaded_and_the_error_says_how(tmp_path, monkeypatch):
  monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path))
  for source in ("tfds:oxford_flowers102", "oxford_flowers102", "tfds:no such (name)"):
    with pytest.raises(UserError, match=r"not? .*on this disk.*tfds.data_source\('"):
      read(source)
  assert list(tmp_path.iterdir()) == []


def test_a_folder_without_or_with_several_data_sets_is_told(root):
  with pytest.raises(UserError, match=r"has several data sets of TFDS, cifar10/1.0.0, coco"):
    read(root)
  (root / "empty").mkdir(exist_ok=True)
  with pytest.raises(UserError, match=r"empty has no dataset_info.json"):
    read(root / "empty", "tfds")


def test_it_can_be_sent_to_another_process(root):
  _, opened = open_format(str(root / "cifar10"), None, Given())
  copy = pickle.loads(pickle.dumps(opened))
  assert [row.key for row in copy.rows(copy.units()[1])] == ["cifar10/test:0"]
