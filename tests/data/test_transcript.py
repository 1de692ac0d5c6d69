"""Turns → tokens → turns gives what was said, and tokens that say nothing are refused where they go wrong."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omniimage.data import conversation
from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.data.transcript import Transcript, read_tokens
from omniimage.size import Size
from omniimage.vocabulary import Vocabulary

V = Vocabulary(text_size=256, image_codes=10)
SIZE = Size(2, 3, 1)
PICTURE = np.zeros((2, 3, 3), np.uint8)
IMAGE = [V.image, V.size(2), V.size(3), *range(V.codes, V.codes + 6), V.end_image]


class Bytes:
  """A text tokenizer that needs no file."""

  def encode(self, text: str) -> list[int]:
    return list(text.encode())

  def decode(self, ids: list[int]) -> str:
    return bytes(ids).decode()


def written(turns) -> list[int]:
  """The tokens of a conversation, its images' codes counted from 0 on."""
  encoded, number = conversation.encode(turns, Bytes(), V, SIZE), 0
  tokens = encoded.tokens.copy()
  for start in encoded.image_starts:
    tokens[start : start + 6] = V.codes + (number + np.arange(6)) % 10
    number += 6
  return tokens.tolist()


def merged(turns) -> list[tuple[str, list]]:
  """What is said by whom: neighboring parts of a role in one turn, neighboring texts in one text; of images the first
  code."""
  told, number = [], 0
  for turn in turns:
    if not told or told[-1][0] != turn.role:
      told.append((turn.role, []))
    content = told[-1][1]
    if isinstance(turn, ImageTurn):
      content.append(number % 10)
      number += 6
    elif content and isinstance(content[-1], str):
      content[-1] += turn.text
    elif turn.text:
      content.append(turn.text)
  return told


def told(transcripts: list[Transcript]) -> list[tuple[str, list]]:
  return [
    (turn.role, [part if isinstance(part, str) else int(part[0, 0]) for part in turn.content]) for turn in transcripts
  ]


parts = st.builds(TextTurn, st.text(max_size=5).filter(lambda text: text.isprintable()), st.booleans())
conversations = st.lists(parts | st.builds(ImageTurn, st.just(PICTURE), st.booleans()), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(conversations)
def test_what_was_said_comes_back(turns):
  found = read_tokens([*written(turns), V.pad, V.pad], Bytes(), V)
  assert told(found) == merged(turns)
  assert [turn.is_whole for turn in found[:-1]] == [True] * (len(found) - 1)
  assert found[-1].is_whole == turns[-1].is_target


@settings(max_examples=200, deadline=None)
@given(conversations, conversations)
def test_conversations_that_differ_in_words_or_turns_differ_in_tokens(one, other):
  assert (written(one) == written(other)) == (merged(one) == merged(other))


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab ", min_size=2, max_size=8), st.data())
def test_the_same_words_split_elsewhere_are_other_tokens(text, data):
  cuts = [data.draw(st.integers(0, len(text))) for _ in range(2)]
  one, other = ([TextTurn(text[:cut], False), TextTurn(text[cut:], True)] for cut in cuts)
  assert (written(one) == written(other)) == (cuts[0] == cuts[1])


def test_codes_come_back_in_the_shape_of_their_image():
  (turn,) = read_tokens([V.assistant, *IMAGE, V.eos], Bytes(), V)
  assert turn.content[0].tolist() == [[0, 1, 2], [3, 4, 5]] and turn.content[0].dtype == np.int32


def test_of_no_tokens_there_are_no_turns():
  assert read_tokens([], Bytes(), V) == read_tokens([V.pad], Bytes(), V) == []


@pytest.mark.parametrize(
  "tokens, problem",
  [
    ([65, V.user], "token 0 is 65, before any turn has begun"),
    ([V.user, V.user], "token 1 begins a turn of the user before that of the user has ended"),
    ([V.assistant, 65, V.user], "token 2 begins a turn of the user before that of the assistant has ended"),
    ([V.user, 65, V.eos], f"token 2 is {V.eos}, where text or an image was expected"),
    ([V.assistant, V.eos, V.assistant], "token 2 begins a turn of the assistant before that of the assistant"),
    ([V.assistant, 65, V.codes], f"token 2 is {V.codes}, where text or an image was expected"),
    ([V.user, V.pad, 65], f"token 1 is {V.pad}, where"),
    ([V.user, V.image], "the image that token 1 begins is cut off"),
    ([V.user, V.image, V.size(2)], "the image that token 1 begins is cut off"),
    ([V.user, *IMAGE[:-1]], "the image that token 1 begins is cut off"),
    ([V.user, 65, *IMAGE[:-2], V.end_image, 65], "the image that token 2 begins is not 2×3 codes"),
    ([V.user, *IMAGE[:-1], 65], "the image that token 1 begins is not 2×3 codes"),
    ([V.user, V.image, 65, V.size(1), V.codes, V.end_image], "token 2 must name the rows of the image"),
  ],
)
def test_what_no_conversation_says_is_refused_where_it_goes_wrong(tokens, problem):
  with pytest.raises(ValueError, match=problem):
    read_tokens(tokens, Bytes(), V)
