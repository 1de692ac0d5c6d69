"""Where the prior reads features of the pictures that the user shows, all ways to answer read the same.

To the tokenizer here every picture is the same codes, so that features alone tell one from another.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.data.conversation import ImageTurn
from omniimage.errors import UserError
from omniimage.sampling.chat import Chat
from omniimage.sampling.events import Image, TextEnd
from omniimage.sampling.generate import Generator
from tests import small

ONE, OTHER, THIRD = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)


@functools.cache
def generator(read: str = "both") -> Generator:
  s = small.settings(**small.SHALLOW, **{"prior.input_images": read, "data.sequence_length": 96})
  params = small.params(small.omni(s))
  encoder = params["tokenizer"]["encoder"]
  encoder["codes"] = jax.tree.map(jnp.zeros_like, encoder["codes"])
  found = Generator(s, params, small.text_tokenizer())
  assert len(np.unique(found.encode(np.stack([ONE, OTHER, THIRD])))) == 1
  return found


@pytest.fixture
def places(monkeypatch):
  """The first place of all that is read."""
  firsts, read = [], generator()._pieces.read

  def noted(params, rows, tokens, start, *rest):
    firsts.append(int(start))
    return read(params, rows, tokens, start, *rest)

  monkeypatch.setattr(generator()._pieces, "read", noted)
  return firsts


def painted(session) -> Image:
  return next(event for event in session if isinstance(event, Image))


def same(one: Image, other: Image) -> bool:
  return (one.codes == other.codes).all() and np.abs(one.pixels - other.pixels).max() < 1e-5


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_what_was_read_of_one_picture_is_not_taken_for_another_of_the_same_codes(guidance, places):
  """Of two pictures the second is another: the reading begins with it, and what is before it is not read again."""
  context, answers, kept = generator().context(), [], []
  for turns in ([ONE, "and", OTHER, "it"], [ONE, "and", THIRD, "it"], [ONE, "and", THIRD, "it"], [THIRD, "and"]):
    fresh = painted(generator().session(turns, guidance=guidance))
    places.clear()
    answers.append(painted(generator().session(turns, context=context, guidance=guidance)))
    kept.append(list(places))
    assert same(answers[-1], fresh)
  words = len(small.text_tokenizer().encode("and"))
  first, second = 1 + 3, 1 + 3 + 4 + 1 + words + 3  # of the codes
  assert kept == [[0], [second], [], [first]]
  assert not same(answers[0], answers[1]) and same(answers[1], answers[2])


def test_a_chat_answers_as_a_session_that_reads_everything_anew():
  chat = Chat(generator())
  for seed, parts in enumerate((["a star"], [ONE, "it"], [OTHER], ["so"])):
    before = list(chat.turns)
    expected = painted(generator().session([*before, *parts], seed, guidance=2.5))
    assert same(painted(chat.say(*parts, seed=seed, answer="image", guidance=2.5)), expected)


CONVERSATIONS = (
  ["a red star"],
  ["a star", ImageTurn(THIRD, True), ONE, "now with a ring in", OTHER],
  [ONE, "what is it"],
  [OTHER, "what is it"],
)
SEEDS = (5, 6, 7, 7)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_images_drawn_at_once_are_those_of_each_session(guidance):
  drawing = generator().draw_after(CONVERSATIONS, SEEDS, guidance=guidance)
  for n, (turns, seed) in enumerate(zip(CONVERSATIONS, SEEDS)):
    image = painted(generator().session(turns, seed, guidance=guidance))
    np.testing.assert_array_equal(drawing.codes[n], image.codes)
    np.testing.assert_allclose(drawing.images[n], image.pixels, atol=1e-5)
  assert np.abs(drawing.images[2] - drawing.images[3]).max() > 1e-3, "the pictures, and nothing else"


def test_texts_written_at_once_are_those_of_each_session():
  texts = generator().write_after(CONVERSATIONS, SEEDS)
  sessions = [generator().session(turns, seed, "text") for turns, seed in zip(CONVERSATIONS, SEEDS)]
  assert texts == [next(event.text for event in session if isinstance(event, TextEnd)) for session in sessions]
  assert texts[2] != texts[3], "the pictures, and nothing else"


def test_what_the_user_shows_cannot_be_codes_alone():
  codes = np.zeros((2, 2), np.int32)
  with pytest.raises(UserError, match=r"its codes \(prior.input_images='both'\); give its pixels"):
    generator().session([ImageTurn(codes, False), "it"])
  for read, is_target in (("both", True), ("codes", False)):
    generator(read).session([ImageTurn(codes, is_target), "it"]).cancel()
