"""A chat reads only what is new, and answers as if it had read everything anew."""

import jax
import numpy as np
import pytest

from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.sampling.chat import Chat
from omniimage.sampling.events import Codes, Image, Text, TextEnd
from omniimage.sampling.prompts import ConversationFull
from tests import small


def _picture(seed: int) -> np.ndarray:
  return np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)


def _same(events, expected):
  events, expected = list(events), list(expected)
  assert [type(event) for event in events] == [type(event) for event in expected]
  for one, other in zip(events, expected):
    if isinstance(one, Text | TextEnd):
      assert one == other
    elif isinstance(one, Codes):
      np.testing.assert_array_equal(one.codes, other.codes)
    else:
      np.testing.assert_allclose(one.pixels, other.pixels, atol=1e-5)
  return events


class Reads:
  """The pieces of a generator, and which places its `read` and `read_beside` read: (first, behind the last)."""

  def __init__(self, pieces):
    self._pieces, self.places, self.beside = pieces, [], []

  def __getattr__(self, name):
    piece = getattr(self._pieces, name)

    def call(params, rows, tokens, start, lengths, features=None):
      (self.places if name == "read" else self.beside).append((int(start), int(lengths[0])))
      return piece(params, rows, tokens, start, lengths, features)

    return call if name in ("read", "read_beside") else piece


@pytest.fixture
def reads(monkeypatch):
  def of(generator) -> Reads:
    monkeypatch.setattr(generator, "_pieces", Reads(generator._pieces))
    return generator._pieces

  return of


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_a_chat_answers_as_a_session_that_reads_everything_anew(guidance):
  generator = small.fond_of("eos", "image")
  chat = Chat(generator)
  for n, (parts, answer) in enumerate(((["a star"], "image"), ([_picture(0), "it"], "image"), (["so"], "free"))):
    before = list(chat.turns)
    expected = generator.session([*before, *parts], n + 3, answer, guidance=guidance)
    _same(chat.say(*parts, seed=n + 3, answer=answer, guidance=guidance), expected)
    assert chat.turns[: len(before)] == before and chat.turns[-1].is_target


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_only_what_is_new_is_read(guidance, reads):
  """The words, the picture and `<assistant>` of a turn, with what opens the image; beside it the same without words."""
  generator = small.generator()
  read = reads(generator)
  chat = Chat(generator)
  list(chat.say("a star", answer="image", guidance=guidance))
  words, again = (len(small.text_tokenizer().encode(text)) for text in ("a star", "larger"))
  first = 2 + words + 3
  assert read.places == [(0, first)]
  list(chat.say("larger", answer="image", guidance=guidance))
  behind = first + 4  # the image's codes; its end, `<eos>` and the next turn are new
  assert read.places[1:] == [(behind, behind + 2 + 2 + again + 3)]
  assert read.beside == ([(1, 5), (behind + 3, behind + 3 + 4)] if guidance != 1 else [])


def test_words_before_an_image_are_not_read_again(reads):
  generator = small.fond_of("image")
  read = reads(generator)
  for seed in range(20):
    read.places.clear()
    events = []
    for event in generator.session("a star", seed, "free"):
      events.append(event)
      if isinstance(event, Codes):
        break
    if len(events) > 2 and isinstance(events[-1], Codes):
      break
  (start, asked), (opening, length) = read.places
  assert start == 0 and opening > asked + 1 and length == opening + 2, "two sizes alone, behind `<image>`"


def test_chats_that_take_turns_say_what_each_says_alone():
  generator = small.generator()
  alone = []
  for seed in (0, 9):
    chat = Chat(generator, seed=seed)
    alone.append([list(chat.say(words, answer="image")) for words in ("a star", "larger")])
  chats = [Chat(generator, seed=seed) for seed in (0, 9)]
  for turn, words in enumerate(("a star", "larger")):
    for one, other in zip(zip(*[chat.say(words, answer="image") for chat in chats]), zip(*[a[turn] for a in alone])):
      for mine, expected in zip(one, other):
        _same([mine], [expected])
  assert (alone[0][1][-1].codes != alone[1][1][-1].codes).any(), "another seed"
  assert (alone[0][0][-1].codes != alone[0][1][-1].codes).any()


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_an_answer_that_is_cancelled_within_an_image_is_taken_back(guidance):
  generator = small.generator()
  chat = Chat(generator)
  list(chat.say("a star", answer="image"))
  before = list(chat.turns)
  session = chat.say("a large blue ring", answer="image", guidance=guidance)
  assert isinstance(next(session), Codes)
  session.cancel()
  assert chat.turns == before
  expected = generator.session([*before, "larger"], 1, guidance=guidance)
  _same(chat.say("larger", answer="image", guidance=guidance), expected)


def test_words_that_were_said_before_a_cancel_stay():
  generator = small.fond_of("pad")
  chat = Chat(generator)
  session = chat.say("a star", answer="text")
  said = next(session).text
  assert chat.turns == []
  again = chat.say("and", answer="text", seed=1)  # cancels it
  assert chat.turns == [TextTurn("a star", False), TextTurn(said, True)]
  assert next(again) == next(generator.session([*chat.turns, "and"], 1, "text"))


def test_undo_takes_back_an_exchange_and_the_chat_goes_on_from_there():
  generator = small.generator()
  chat = Chat(generator, ["a star", ImageTurn(_picture(0), True)])
  start = list(chat.turns)
  list(chat.say(_picture(1), "this", answer="image"))
  assert len(chat.turns) == 5 and chat.answers == 2
  assert chat.undo() and chat.turns == start
  _same(chat.say("larger", answer="image"), generator.session([*start, "larger"], 1))
  assert chat.undo() and chat.undo() and chat.turns == [] and not chat.undo()


def test_a_full_conversation_is_refused_before_anything_is_read(reads):
  generator = small.generator()
  read = reads(generator)
  chat = Chat(generator)
  assert chat.room == 63
  list(chat.say("a star", answer="image"))
  read.places.clear()
  left = chat.room
  with pytest.raises(ConversationFull, match=r"tokens and the model reads at most 55 beside the next image; leave out"):
    chat.say("star " * left, answer="image")
  with pytest.raises(ConversationFull, match=r"reads at most 62 beside an answer"):
    chat.say("star " * left)
  assert not read.places and chat.room == left and len(chat.turns) == 2
  list(chat.say("larger", answer="image"))
  assert chat.room < left


def test_a_text_that_fills_the_row_ends_for_want_of_room_and_the_chat_is_soon_full():
  """What was written may be fewer tokens when it is read again, and then leaves some room."""
  chat = Chat(small.fond_of("pad"))
  with pytest.raises(ConversationFull):
    for _ in range(20):
      *_, end = chat.say("a star")
      assert isinstance(end, TextEnd) and end.reason in ("length", "eos")
  assert chat.room < 8


def test_new_parameters_are_read_with_anew():
  generator = small.fond_of("eos")
  chat = Chat(generator)
  list(chat.say("a star", answer="image"))
  small.fond_of("pad")
  _same(chat.say("larger", answer="text"), generator.session([*chat.turns, "larger"], 1, "text"))


def test_what_a_chat_held_goes_with_it():
  def caches() -> int:
    return sum(array.ndim == 4 for array in jax.live_arrays())

  generator = small.generator()
  list(generator.session("a star"))
  before = caches()
  chat = Chat(generator)
  turns = [type(event) for event in chat.say("a star", answer="image")]
  assert turns[-1] is Image and caches() > before
  session = chat.say("larger", answer="image")
  next(session)
  del chat, session
  assert caches() == before


def test_an_answer_that_is_dropped_is_cancelled():
  chat = Chat(small.fond_of("pad"))
  said = next(chat.say("a star", answer="text")).text
  assert chat.turns == [TextTurn("a star", False), TextTurn(said, True)]
