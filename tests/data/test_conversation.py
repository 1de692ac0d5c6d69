"""The sequence a conversation becomes: grammar, positions, weights."""

import numpy as np
import pytest

from omniimage.data import conversation
from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.size import Size
from omniimage.vocabulary import MAX_GRID, Vocabulary

VOCABULARY = Vocabulary(text_size=256, image_codes=10)
SIZE = Size(rows=2, columns=2, pixels_per_token=2)  # of `picture`


class Bytes:
  """A text tokenizer that needs no file."""

  def encode(self, text: str) -> list[int]:
    return list(text.encode())


def picture(value: int, size: int = 4) -> np.ndarray:
  return np.full((size, size, 3), value, np.uint8)


def encode(*turns, size=SIZE):
  return conversation.encode(turns, Bytes(), VOCABULARY, size)


def test_tokens_positions_and_weights_of_an_edit_are_those_worked_out_by_hand():
  encoded = encode(ImageTurn(picture(1), False), TextTurn("hi", False), ImageTurn(picture(2), True))
  v, two, code = VOCABULARY, VOCABULARY.size(2), VOCABULARY.codes
  image = [v.image, two, two, code, code, code, code, v.end_image]
  assert encoded.tokens.tolist() == [*image, ord("h"), ord("i"), *image, v.eos]
  assert encoded.positions.tolist() == [
    *([0, 0, 0], [1, 1, 1], [2, 2, 2]),  # <image> rows columns
    *([3, 3, 3], [3, 3, 4], [3, 4, 3], [3, 4, 4]),  # codes, t₀ = 3
    [5, 5, 5],  # </image> at t₀ + 2
    *([6, 6, 6], [7, 7, 7]),  # h i
    *([8, 8, 8], [9, 9, 9], [10, 10, 10]),
    *([11, 11, 11], [11, 11, 12], [11, 12, 11], [11, 12, 12]),
    [13, 13, 13],
    [14, 14, 14],  # <eos>
  ]
  assert encoded.loss_weights.tolist() == [0] * 10 + [1] * 8 + [1]
  assert encoded.image_starts.tolist() == [3, 13]
  assert encoded.image_is_target.tolist() == [False, True]
  assert [image[0, 0, 0] for image in encoded.images] == [1, 2]
  assert encoded.tokens.dtype == encoded.positions.dtype == np.int32 and encoded.loss_weights.dtype == np.float32


def test_text_after_an_image_continues_at_its_longer_side():
  tokens, positions = conversation.image_tokens(2, 3, VOCABULARY)
  assert tokens.tolist() == [VOCABULARY.image, VOCABULARY.size(2), VOCABULARY.size(3)] + [VOCABULARY.codes] * 6 + [
    VOCABULARY.end_image
  ]
  assert positions[3:9].tolist() == [[3, 3, 3], [3, 3, 4], [3, 3, 5], [3, 4, 3], [3, 4, 4], [3, 4, 5]]
  assert positions[9].tolist() == [6, 6, 6]
  assert conversation.image_tokens(3, 2, VOCABULARY)[1][-1].tolist() == [6, 6, 6]


def test_the_first_token_has_no_weight_even_when_it_is_a_target():
  assert encode(TextTurn("ab", True)).loss_weights.tolist() == [0, 1, 1]
  assert encode(ImageTurn(picture(0), True)).loss_weights.tolist() == [0] + [1] * 8


def test_text_alone_has_no_images_and_three_equal_positions():
  encoded = encode(TextTurn("abc", False), TextTurn("de", True))
  assert encoded.positions.tolist() == [[t, t, t] for t in range(6)]
  assert encoded.loss_weights.tolist() == [0, 0, 0, 1, 1, 1]
  assert encoded.images == () and encoded.image_starts.shape == (0,)


def test_an_empty_text_turn_takes_no_place():
  with_empty = encode(TextTurn("", False), ImageTurn(picture(0), True))
  without = encode(ImageTurn(picture(0), True))
  for name in ("tokens", "positions", "loss_weights", "image_starts"):
    np.testing.assert_array_equal(getattr(with_empty, name), getattr(without, name))


@pytest.mark.parametrize("size", [Size(1, 1, 4), SIZE, Size(5, 3, 2)])
def test_length_counts_the_tokens(size):
  encoded = encode(TextTurn("abc", False), *[ImageTurn(picture(0), True)] * 3, size=size)
  assert conversation.length(3, 3, size) == len(encoded.tokens)


def test_what_is_encoded_once_does_not_change_what_is_encoded_next():
  first = encode(ImageTurn(picture(0), True))
  first.tokens[:] = first.positions[:] = 7
  again = encode(ImageTurn(picture(0), True))
  assert again.tokens[0] == VOCABULARY.image and again.positions[0].tolist() == [0, 0, 0]


def test_errors_say_what_was_given_and_what_to_do():
  with pytest.raises(ValueError, match="at least one turn"):
    encode()
  with pytest.raises(ValueError, match=r"uint8, got \(4, 4, 3\) of float32"):
    ImageTurn(np.zeros((4, 4, 3), np.float32), True)
  with pytest.raises(ValueError, match=r"got \(4, 4\) of uint8"):
    ImageTurn(np.zeros((4, 4), np.uint8), True)
  with pytest.raises(ValueError, match=r"id 122, but the vocabulary has 100 text ids"):
    conversation.encode([TextTurn("az", False)], Bytes(), Vocabulary(100, 10), SIZE)
  with pytest.raises(ValueError, match=f"1 to {MAX_GRID} token rows and columns, got {MAX_GRID + 1}"):
    encode(ImageTurn(picture(0), True), size=Size(MAX_GRID + 1, 1, 4))
