"""Sizes that a run was never trained on: drawn, gone on beyond the edges, and with more pixels."""

import numpy as np
import pytest

from omniimage.errors import SettingsError, UserError
from omniimage.sampling.generate import Generator
from omniimage.sampling.kept import around
from tests import small

PROMPT = "a red star"


@pytest.fixture(scope="module")
def generator():
  return small.generator()


@pytest.fixture(scope="module")
def wide(generator):
  return generator.sized("32x16")


@pytest.fixture(scope="module")
def picture():
  return np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


def test_a_size_in_pixels_is_drawn_by_the_same_parameters(generator, wide):
  drawing = wide([PROMPT] * 2, seed=1)
  assert drawing.codes.shape == (2, 2, 4) and drawing.images.shape == (2, 16, 32, 3)
  assert wide.params is generator.params and wide.settings.data.aspect_ratios == ("32x16", "1:1")
  same = generator.sized("16x16")
  assert same.settings == generator.settings, "its own size by its pixels is its own"


def test_texts_have_as_much_room_beside_a_larger_picture(generator, wide):
  longest = " ".join(["star"] * 40)
  for drawer in (generator, wide):
    length = drawer.prompt_tokens([longest])[1][0]
  assert length == len(small.text_tokenizer().encode(longest)) + 5
  assert wide.settings.data.sequence_length == generator.settings.data.sequence_length + 4


def test_a_size_that_cannot_be_drawn_is_named(generator):
  for named, said in (
    ("20x16", "multiples of the 8 pixels of a visual token"),
    ("0x16", "multiples of the 8 pixels"),
    ("2:1", "given in pixels, as 128x64"),
    ("99992x8", "at most"),
  ):
    with pytest.raises(SettingsError, match=said):
      generator.sized(named)


def test_a_taller_canvas_has_more_chunks_of_the_trained_height_and_reads_its_own_tokens(generator):
  tall = generator.sized("16x32")
  assert tall.omni.layout(4, 2, tall.settings.sampling.chunk_rows).count == 4
  codes = np.asarray(tall([PROMPT], seed=1).codes)
  other = codes.copy()
  other[:, 3] = (other[:, 3] + 1) % 64
  painted, changed = (np.asarray(tall.repaint([PROMPT], each, seed=1).images) for each in (codes, other))
  assert painted.shape == (1, 32, 16, 3) and np.abs(painted - changed)[:, 24:].max() > 1e-3


@pytest.mark.parametrize(
  "sides, size",
  [((0, 16, 0, 0), (16, 32)), ((8, 0, 0, 8), (24, 24)), ((0, 8, 0, -8), (16, 16)), ((-8, 0, 8, 0), (16, 16))],
  ids=str,
)
def test_what_was_there_stays_where_the_frame_leaves_it(generator, picture, sides, size):
  drawing = generator.outpaint(picture, *sides, prompt=PROMPT, n=2, seed=1)
  codes = np.asarray(generator.encode(picture[None]))[0]
  redraw = around(picture, codes, sides, 8)
  stays = ~redraw.again
  assert drawing.images.shape == (2, *size, 3) and 0 < stays.sum() <= 256
  given = redraw.picture.astype(np.float32) / 127.5 - 1
  np.testing.assert_allclose(np.asarray(drawing.images)[:, stays], np.stack([given[stays]] * 2), atol=1e-5)
  kept = stays[::8, ::8]
  assert (np.asarray(drawing.codes)[:, kept] == redraw.codes[kept]).all()
  assert np.abs(np.asarray(drawing.images)[:, ~stays] - given[~stays]).max() > 0.1


def test_the_frame_moves_over_the_picture():
  picture = np.arange(16 * 16 * 3).reshape(16, 16, 3).astype(np.uint8)
  redraw = around(picture, np.array([[1, 2], [3, 4]]), (0, 8, 0, -8), 8)
  np.testing.assert_array_equal(redraw.picture[:, :8], picture[:, 8:])
  np.testing.assert_array_equal(redraw.codes[:, 0], [2, 4])
  assert redraw.again[:, 8:].all() and not redraw.again[:, :8].any()


def test_a_frame_that_makes_no_sense_is_one_line(generator, picture):
  for sides, said in (
    ((0, 0, 0, 0), "nothing of the picture is to be drawn again"),
    ((0, 5, 0, 0), "right=5.*multiples of the 8 pixels"),
    ((0, 16, 0, -16), "leaves nothing of the picture"),
    ((-8, 0, 0, 0), "nothing of the picture is to be drawn again"),
  ):
    with pytest.raises(UserError, match=said):
      generator.outpaint(picture, *sides)


def test_a_painter_of_more_pixels_than_are_read_upscales(picture):
  s = small.settings(**small.SHALLOW, **{"decoder.pixels_per_token": 16, "data.image_size": 32})
  generator = Generator(s, small.params(small.omni(s)), small.text_tokenizer())
  drawing = generator.upscale(picture, PROMPT, n=2, seed=1)
  assert drawing.images.shape == (2, 32, 32, 3) and drawing.rendering.shape == (2, 16, 16, 3)
  finer = picture.repeat(2, axis=0).repeat(2, axis=1)
  codes = np.asarray(generator.encode(finer[None]))
  np.testing.assert_array_equal(drawing.codes, np.concatenate([codes, codes]))
  np.testing.assert_allclose(drawing.images, generator.repaint([PROMPT] * 2, drawing.codes, seed=1).images, atol=1e-5)
  larger = generator.upscale(np.concatenate([picture, picture[:12]], axis=0))
  assert larger.images.shape == (1, 48, 32, 3), "as many visual tokens as the picture has room for"


def test_a_painter_of_what_is_read_says_what_to_train(generator, picture):
  with pytest.raises(UserError, match=r"train with decoder\.pixels_per_token=16 or more"):
    generator.upscale(picture)
