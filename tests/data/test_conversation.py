"""The sequence a conversation becomes: grammar, positions, weights."""

import numpy as np
import pytest

from omniimage.data import conversation
from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.data.transcript import read_tokens
from omniimage.size import Size
from omniimage.vocabulary import MAX_GRID, Vocabulary, image_length, turns_length
from tests import small

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
  assert encoded.tokens.tolist() == [v.user, *image, ord("h"), ord("i"), v.assistant, *image, v.eos]
  assert encoded.positions.tolist() == [
    *([0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 3, 3]),  # <user> <image> rows columns
    *([4, 4, 4], [4, 4, 5], [4, 5, 4], [4, 5, 5]),  # codes, t₀ = 4
    [6, 6, 6],  # </image> at t₀ + 2
    *([7, 7, 7], [8, 8, 8], [9, 9, 9]),  # h i <assistant>
    *([10, 10, 10], [11, 11, 11], [12, 12, 12]),
    *([13, 13, 13], [13, 13, 14], [13, 14, 13], [13, 14, 14]),
    [15, 15, 15],
    [16, 16, 16],  # <eos>
  ]
  assert encoded.loss_weights.tolist() == [0] * 12 + [1] * 8 + [1]
  assert encoded.image_starts.tolist() == [4, 15]
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


def test_text_alone_is_the_assistants_and_learnt_from_its_first_token_on():
  encoded = encode(TextTurn("abc", True))
  assert encoded.tokens.tolist() == [VOCABULARY.assistant, *b"abc", VOCABULARY.eos]
  assert encoded.loss_weights.tolist() == [0, 1, 1, 1, 1]
  assert encoded.positions.tolist() == [[t, t, t] for t in range(5)]
  assert encoded.images == () and encoded.image_starts.shape == (0,)


def test_the_assistant_ends_each_of_its_turns_and_nobody_learns_who_begins_one():
  v = VOCABULARY
  turns = [TextTurn(text, own) for text, own in (("a", False), ("b", True), ("cd", False), ("e", True))]
  encoded = encode(*turns)
  expected = [v.user, ord("a"), v.assistant, ord("b"), v.eos, v.user, *b"cd", v.assistant, ord("e"), v.eos]
  assert encoded.tokens.tolist() == expected
  assert encoded.loss_weights.tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1]


def test_parts_of_one_role_are_one_turn():
  apart = encode(TextTurn("what is", False), TextTurn(" it", False), TextTurn("a", True), TextTurn(" star", True))
  assert apart.tokens.tolist() == encode(TextTurn("what is it", False), TextTurn("a star", True)).tokens.tolist()


def test_where_a_turn_ends_is_told_by_its_tokens():
  one = encode(TextTurn("what is it", False), TextTurn(" a red star", True))
  other = encode(TextTurn("what is it a", False), TextTurn(" red star", True))
  assert one.tokens.tolist() != other.tokens.tolist()


def test_a_user_who_says_nothing_still_has_a_turn():
  encoded, v = encode(TextTurn("", False), ImageTurn(picture(0), True)), VOCABULARY
  assert encoded.tokens[:3].tolist() == [v.user, v.assistant, v.image]
  assert encode(ImageTurn(picture(0), True)).tokens[:2].tolist() == [v.assistant, v.image]


def test_a_user_who_has_the_last_word_ends_no_turn():
  assert encode(TextTurn("a", False)).tokens.tolist() == [VOCABULARY.user, ord("a")]
  assert not encode(TextTurn("a", False)).loss_weights.any()


def test_a_prompt_is_what_stands_before_the_rest_of_the_conversation():
  turns = [TextTurn("a", False), ImageTurn(picture(0), True), TextTurn("b", False), TextTurn("c", True)]
  turns.append(ImageTurn(picture(1), True))
  whole = encode(*turns)
  for stop in range(1, len(turns)):
    prompt = conversation.encode_prompt(turns[:stop], Bytes(), VOCABULARY, SIZE)
    goes_on = 2 if turns[stop - 1].is_target and not turns[stop].is_target else 0  # <eos> <user> come first
    assert prompt.tokens.tolist() == whole.tokens[: len(prompt.tokens)].tolist()
    assert prompt.positions.tolist() == whole.positions[: len(prompt.tokens)].tolist()
    following = whole.tokens[len(prompt.tokens) + goes_on]
    assert following == (VOCABULARY.image if isinstance(turns[stop], ImageTurn) else ord(turns[stop].text))


def test_the_role_is_the_assistants_where_the_turn_is_a_target():
  assert [TextTurn("a", own).role for own in (False, True)] == ["user", "assistant"]
  assert [ImageTurn(picture(0), own).role for own in (False, True)] == ["user", "assistant"]


@pytest.mark.parametrize("text", ["<user>", "<assistant> hi", "a<eos>b", "<image></image>"])
def test_what_is_said_never_begins_or_ends_a_turn(text):
  text_tokenizer = small.text_tokenizer()
  vocabulary = Vocabulary(text_tokenizer.size, image_codes=10)
  said = conversation.encode([TextTurn(text, False), TextTurn(text, True)], text_tokenizer, vocabulary, SIZE).tokens
  specials = [vocabulary.user, vocabulary.assistant, vocabulary.eos]
  assert said[said >= vocabulary.text_size].tolist() == specials
  assert [turn.content for turn in read_tokens(said, text_tokenizer, vocabulary)] == [(text,), (text,)]


@pytest.mark.parametrize("size", [Size(1, 1, 4), SIZE, Size(5, 3, 2)])
@pytest.mark.parametrize("exchanges", [1, 3])
def test_length_counts_the_tokens(size, exchanges):
  turns = [TextTurn("abc", False), ImageTurn(picture(0), True), ImageTurn(picture(0), True)] * exchanges
  expected = conversation.length(3 * exchanges, 2 * exchanges, size, exchanges)
  assert expected == len(encode(*turns, size=size).tokens)
  roles = [turn.role for turn in turns]
  assert expected == 3 * exchanges + 2 * exchanges * image_length(size) + turns_length(roles)


def test_what_is_encoded_once_does_not_change_what_is_encoded_next():
  first = encode(ImageTurn(picture(0), True))
  first.tokens[:] = first.positions[:] = 7
  again = encode(ImageTurn(picture(0), True))
  assert again.tokens[:2].tolist() == [VOCABULARY.assistant, VOCABULARY.image]
  assert again.positions[0].tolist() == [0, 0, 0] and again.positions[1].tolist() == [1, 1, 1]


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
