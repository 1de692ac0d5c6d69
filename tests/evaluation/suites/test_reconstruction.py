"""Reconstruction: decibels and codebook figures against numbers worked out by hand."""

import dataclasses

import numpy as np
import pytest

from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.data.tasks import TextToImage
from omniimage.evaluation.held_out import Examples, held_out, pick, picked, prompt_and_target
from omniimage.evaluation.measures.fidelity import decibels, mean_squared_errors
from omniimage.evaluation.suites.reconstruction import Reconstruction, codebook_use, reconstruction
from tests.evaluation.fakes import FakeGenerator, settings


def test_psnr_of_a_known_error():
  black = np.zeros((2, 4, 4, 3), np.uint8)
  off = black.copy()
  off[0] += 51  # a fifth of the range: mse 0.04, 13.979 dB
  off[1, :2] += 102  # two fifths on half of the pixels: mse 0.08, 10.969 dB
  mse = mean_squared_errors(off, black)
  assert mse == pytest.approx([0.04, 0.08], rel=1e-6)
  assert decibels(mse) == pytest.approx([13.9794, 10.9691], abs=1e-4)

  figures = Reconstruction(Examples(("", ""), black), black, off, np.zeros((2, 1, 1), int), 4).figures()
  assert figures["psnr_db"] == pytest.approx(12.4743, abs=1e-4)
  assert figures["psnr_of_mean_db"] == pytest.approx(12.2185, abs=1e-4)


def test_an_image_that_comes_back_to_the_bit_has_a_hundred_decibels():
  assert decibels(np.zeros(1)) == [100]


@pytest.mark.parametrize(
  "codes, used, perplexity",
  [
    ([3, 3, 3, 3], 1 / 8, 1.0),
    ([0, 1, 2, 3], 4 / 8, 4.0),
    ([0, 0, 1, 2], 3 / 8, 2**1.5),  # entropy of ½, ¼, ¼: one and a half bits
    (list(range(8)), 1.0, 8.0),
  ],
)
def test_codebook_figures_of_a_known_histogram(codes, used, perplexity):
  figures = codebook_use(np.reshape(codes, (-1, 2, 2) if len(codes) == 4 else (1, 2, 4)), 8)
  assert figures == pytest.approx({"codebook_used": used, "dead_codes": 8 * (1 - used), "perplexity": perplexity})


def test_held_out_images_pass_through_the_tokenizer_in_order():
  s = settings()
  result = reconstruction(FakeGenerator(s), images=10, seed=0, batch=4)
  assert (result.reconstructions == result.examples.images).all() and result.codes.shape == (10, 4, 4)
  assert result.figures()["psnr_db"] == 100 and result.figures()["images"] == 10
  assert (result.codes == FakeGenerator(s).encode(result.images)).all() and result.codebook_size == 1000


def test_held_out_examples_depend_on_nothing_but_the_seed():
  generator = FakeGenerator(settings())
  few, many, other = held_out(generator, 4, 0), held_out(generator, 9, 0), held_out(generator, 9, 1)
  assert few.captions == many.captions[:4] and (few.images == many.images[:4]).all()
  assert (other.images == many.images).all() and other.captions != many.captions


def test_held_out_examples_are_all_different():
  s = settings()
  world = dataclasses.replace(s.data.source, max_objects=1)
  generator = FakeGenerator(dataclasses.replace(s, data=dataclasses.replace(s.data, source=world)))
  for found in (held_out(generator, 26, 0), picked(generator, "test", 26, 0)):
    assert len(found.captions) == len({image.tobytes() for image in found.images}) == 24


def test_picked_examples_come_from_all_over_a_split_and_once_each():
  indices = pick(100, 16, 0)
  assert len(set(indices)) == 16 and indices.min() < 25 and indices.max() >= 75 and list(indices) == sorted(indices)
  assert set(pick(5, 16, 0)) == set(range(5))


def test_an_example_is_the_text_before_the_last_target_image():
  sketch, image = (np.full((2, 2, 3), value, np.uint8) for value in (1, 2))
  turns = [TextTurn("a house", False), ImageTurn(sketch, False), TextTurn("in red", False), ImageTurn(image, True)]
  text, found = prompt_and_target(TextToImage(), [*turns, TextTurn("done", True)])
  assert text == "a house in red" and found is image
  assert prompt_and_target(TextToImage(), turns[:3]) is None
