import io

import numpy as np
import pytest
from PIL import Image

from omniimage.data import emoji
from omniimage.data.formats import open_format
from omniimage.data.formats.format import Given
from omniimage.data.scenes.captions import parse
from omniimage.data.scenes.world import render, scene_of
from omniimage.errors import UserError
from tests.data.formats.made import read


def test_scenes_are_their_pictures_and_captions_that_read_back():
  found = read("scenes:3:10:48")
  assert [row.split for row in found] == ["train"] * 10 + ["test"]
  for row in found[:10]:
    scene = scene_of(int(row.key.split("/")[-1]), "train", grid=3, min_objects=1, max_objects=4)
    assert all(parse(text, 3) == scene for text in row.record.turns[0].content[0].texts)
    pixels = np.asarray(Image.open(io.BytesIO(row.record.images[0])))
    np.testing.assert_array_equal(pixels, render(scene, 48))


@pytest.mark.parametrize(
  "source", ["scenes:9", "scenes:two", "scenes:2:0", "scenes:5:10:16", "scenes:2:1:32:7", "scenes:"]
)
def test_scenes_that_do_not_exist_are_refused(source):
  with pytest.raises(UserError, match=r"scenes"):
    read(source)


def test_the_emoji_keep_their_splits(monkeypatch):
  np.testing.assert_array_equal(first_picture("emoji"), emoji.load().images[emoji.indices("train")[0]])
  monkeypatch.setattr("omniimage.data.formats.emoji.png", lambda pixels: b"drawn")  # which takes seconds
  found = read("emoji")
  assert sum(row.split == "test" for row in found) == len(emoji.indices("test"))
  assert len(found) == len({row.key for row in found}) == len(emoji.load().concepts)


def first_picture(source: str) -> np.ndarray:
  _, opened = open_format(source, None, Given())
  return np.asarray(Image.open(io.BytesIO(next(opened.rows(opened.units()[0])).record.images[0])))
