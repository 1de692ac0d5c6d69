"""Inpainting and variations: what is to stay stays to the bit, the rest is drawn as ever and sees what stays."""

import numpy as np
import pytest
from PIL import Image

from omniimage.errors import UserError
from omniimage.sampling.kept import Redraw, remix
from omniimage.sampling.pictures import read_part
from tests import small

PROMPT = "a red star"
ALL = np.ones((16, 16), bool)


@pytest.fixture(scope="module")
def generator():
  return small.generator()


@pytest.fixture(scope="module")
def picture():
  return np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


def part(*cells: tuple[int, int]) -> np.ndarray:
  """Those of the four visual tokens, of 8×8 pixels each."""
  again = np.zeros((16, 16), bool)
  for row, column in cells:
    again[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = True
  return again


def test_with_all_of_it_drawn_again_it_is_a_drawing_of_the_prompt(generator, picture):
  drawing, again = generator([PROMPT] * 8, seed=3), generator.inpaint(picture, ALL, PROMPT, n=8, seed=3)
  np.testing.assert_array_equal(again.codes, drawing.codes)
  np.testing.assert_allclose(again.images, drawing.images, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"guidance": 2.0, "token_guidance": 2.0, "chunk_rows": 1}], ids=str)
@pytest.mark.parametrize("cell", [(0, 0), (1, 0)])
def test_what_is_not_marked_keeps_its_codes_and_its_pixels(generator, picture, cell, changes):
  again, codes = part(cell), np.asarray(generator.encode(picture[None]))[0]
  drawing = generator.inpaint(picture, again, PROMPT, n=8, seed=1, **changes)
  stays = ~again
  given = picture.astype(np.float32) / 127.5 - 1
  assert (np.asarray(drawing.codes)[:, stays[::8, ::8]] == codes[stays[::8, ::8]]).all()
  np.testing.assert_allclose(
    np.asarray(drawing.images)[:, stays], np.broadcast_to(given[stays], (8, 192, 3)), atol=1e-5
  )
  assert len({code for code in np.asarray(drawing.codes)[:, cell[0], cell[1]].tolist()}) > 1
  assert np.abs(np.asarray(drawing.images)[:, again] - given[again]).max() > 0.1


def test_what_is_drawn_again_sees_what_stays_before_it(generator, picture):
  """The last token is drawn from the logits behind those that stay."""
  other = picture.copy()
  other[:8] = 255 - other[:8]
  seen = [generator.inpaint(shown, part((1, 1)), PROMPT, n=8, seed=1).codes[:, 1, 1] for shown in (picture, other)]
  assert (np.asarray(generator.encode(picture[None])) != np.asarray(generator.encode(other[None]))).any()
  assert (np.asarray(seen[0]) != np.asarray(seen[1])).any()


def test_a_pixel_marks_its_token_and_its_patch_alone(generator, picture):
  again = np.zeros((16, 16), bool)
  again[15, 0] = True
  drawing = generator.inpaint(picture, again, PROMPT, n=8, seed=1)
  changed = np.abs(np.asarray(drawing.images)[0] - (picture.astype(np.float32) / 127.5 - 1)).max(-1) > 1e-4
  assert changed[12:, :4].any() and not changed[:12].any() and not changed[:, 4:].any()


def test_variations_keep_a_share_of_the_codes_and_are_painted_anew(generator, picture):
  codes = np.asarray(generator.encode(picture[None]))[0]
  varied = generator.vary(picture, PROMPT, n=8, seed=2, keep=0.75)
  same = (np.asarray(varied.codes) == codes).reshape(8, 4)
  assert (same.sum(axis=1) >= 3).all() and not same.all() and len(np.unique(same, axis=0)) > 1
  given = picture.astype(np.float32) / 127.5 - 1
  assert (np.abs(np.asarray(varied.images) - given).reshape(8, 4, 4, 4, 4, 3).max(axis=(2, 4, 5)) > 1e-3).all()
  np.testing.assert_array_equal(generator.vary(picture, PROMPT, n=8, seed=2, keep=0.75).images, varied.images)
  assert (np.asarray(generator.vary(picture, PROMPT, n=8, seed=3, keep=0.75).codes) != varied.codes).any()


def test_a_remix_keeps_codes_of_both_pictures(generator, picture):
  pictures = np.stack([picture, 255 - picture])
  first, second = np.asarray(generator.encode(pictures))
  assert (first != second).any()
  mixed = np.asarray(generator.remix(*pictures, PROMPT, n=8, seed=2, keep=0.75).codes)
  of_first, of_second = mixed == first, mixed == second
  assert ((of_first | of_second).reshape(8, 4).sum(axis=1) >= 3).all(), "three of four tokens stay"
  assert (of_first & ~of_second).any()
  assert (of_second & ~of_first).any()


def test_one_drawing_may_remix_and_another_not(generator, picture):
  """As the server's batches: each picture is what it would be alone."""
  size, dice = generator.settings.buckets[0], np.random.default_rng(0)
  mixed = remix(picture, 255 - picture, size, 0.75, dice)
  both, alone = generator._kept([Redraw(picture, part((0, 0))), mixed]), generator._kept([mixed])
  np.testing.assert_array_equal(both.codes[1], alone.codes[0])


def test_without_words_it_goes_by_the_picture_alone(generator, picture):
  bare = generator.inpaint(picture, part((1, 1)), n=8, seed=1)
  assert bare.images.shape == (8, 16, 16, 3) and np.isfinite(bare.images).all()


def test_files_of_any_size_and_parts_of_theirs(generator, tmp_path):
  large = np.random.default_rng(1).integers(0, 256, (40, 64, 3), np.uint8)
  Image.fromarray(large).save(tmp_path / "a picture.png")
  marked = np.zeros((40, 64), bool)
  marked[:20, 32:] = True  # the upper right quarter, of which the crop to a square has the left part
  drawing = generator.inpaint(str(tmp_path / "a picture.png"), marked, PROMPT, n=8, seed=1)
  read = read_part(marked, generator.settings)
  assert read[:7, 9:].all() and not read[9:].any() and not read[:, :7].any()
  assert drawing.images.shape == (8, 16, 16, 3)


@pytest.mark.parametrize(
  ("given", "said"),
  [
    (dict(again=np.zeros((16, 16), bool)), "nothing of the picture is to be drawn again"),
    (dict(again=np.ones((16, 16), np.uint8)), r"\(height, width\) of bool, got \(16, 16\) of uint8"),
    (dict(again=np.ones((16, 16, 3), bool)), r"got \(16, 16, 3\) of bool"),
    (dict(again=ALL, prompt="  "), "the prompt is empty"),
  ],
)
def test_what_cannot_be_inpainted_is_named(generator, picture, given, said):
  with pytest.raises(UserError, match=said):
    generator.inpaint(picture, **given)


@pytest.mark.parametrize("keep", [-0.1, 1.0, float("nan")])
def test_a_share_that_cannot_be_is_named(generator, picture, keep):
  with pytest.raises(UserError, match=f"keep={keep}: the share of visual tokens that stay"):
    generator.vary(picture, PROMPT, keep=keep)


@pytest.mark.parametrize("seed", range(3))
def test_drawn_event_by_event_it_is_the_same(generator, picture, seed):
  redraws = [Redraw(picture, part((1, 1))), Redraw(255 - picture, part((0, 0), (1, 0)))]
  *_, images = generator.draw_together([[PROMPT]] * 2, [seed, seed], rows=8, redraws=redraws)
  for image, redraw in zip(images, redraws):
    whole = generator.inpaint(redraw.picture, redraw.again, PROMPT, seed=seed)
    np.testing.assert_array_equal(image.codes, whole.codes[0])
    np.testing.assert_allclose(image.pixels, whole.images[0], atol=1e-5)
