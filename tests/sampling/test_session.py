"""A session gives event by event what the batch draws at once, and stops when it is told to."""

import functools
import pathlib
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.data import conversation
from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.data.tasks import TextToImage
from omniimage.data.transcript import read_tokens
from omniimage.errors import UserError
from omniimage.sampling.autoregressive import prefill, sample_tokens
from omniimage.sampling.events import Chunk, Codes, Image, Text, TextEnd
from omniimage.sampling.generate import Generator, row_keys
from omniimage.sampling.prompts import pad, read_turns, room_before_image, without_words
from omniimage.sampling.session import WORDS
from omniimage.streams import Stream
from tests import small

PROMPT = "a red star"


@functools.cache
def _settings():
  return small.settings(**small.SHALLOW)


_generator = small.generator


def _picture(seed: int) -> np.ndarray:
  size = _settings().data.image_size
  return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"guidance": 2.5, "chunk_rows": 1},
    {"temperature": 0.0, "token_guidance": 2.0, "text_guidance": 1.5},
    {"top_k": 3, "chunk_rows": 0},
  ],
  ids=str,
)
def test_a_session_draws_what_the_batch_draws(changes):
  generator = _generator()
  drawing = generator([PROMPT], seed=3, **changes)
  *pieces, image = generator.session(PROMPT, seed=3, **changes)
  np.testing.assert_array_equal(image.codes, drawing.codes[0])
  np.testing.assert_allclose(image.pixels, drawing.images[0], atol=1e-5)
  np.testing.assert_allclose(image.rendering, drawing.rendering[0], atol=1e-5)
  assert len(pieces) == 2 + generator.omni.layout(2, 2, changes.get("chunk_rows", 2)).count


def test_codes_come_row_by_row_and_chunks_from_the_top_and_make_up_the_image():
  *pieces, image = _generator().session(PROMPT, chunk_rows=1)
  assert [type(piece) for piece in pieces] == [Codes] * 2 + [Chunk] * 4 and isinstance(image, Image)
  codes, chunks = pieces[:2], pieces[2:]
  assert [(piece.first, piece.grid) for piece in codes] == [(0, (2, 2)), (2, (2, 2))]
  np.testing.assert_array_equal(np.concatenate([piece.codes for piece in codes]), image.codes.ravel())
  assert [(piece.place, piece.size) for piece in chunks] == [((top, 0), (16, 16)) for top in (0, 4, 8, 12)]
  np.testing.assert_array_equal(np.concatenate([piece.pixels for piece in chunks]), image.pixels)


def test_sessions_that_take_turns_draw_what_each_draws_alone():
  prompts = {seed: prompt for seed, prompt in enumerate([PROMPT, "a blue ring", PROMPT])}
  alone = [list(_generator().session(prompt, seed))[-1] for seed, prompt in prompts.items()]
  sessions = [_generator().session(prompt, seed) for seed, prompt in prompts.items()]
  together = list(zip(*sessions))[-1]
  for one, other in zip(alone, together):
    np.testing.assert_array_equal(one.codes, other.codes)
    np.testing.assert_array_equal(one.pixels, other.pixels)
  assert (alone[0].pixels != alone[2].pixels).any()  # another seed


def test_pieces_are_compiled_once_for_prompts_of_a_bucket():
  generator = _generator()
  list(generator.session(PROMPT))
  compiled = []
  listener = lambda event, _, **__: compiled.append(event) if "backend_compile" in event else None  # noqa: E731
  jax.monitoring.register_event_duration_secs_listener(listener)
  list(generator.session("a large blue circle", seed=7))
  jax.monitoring.unregister_event_duration_listener(listener)
  assert not compiled


def test_a_session_keeps_the_parameters_that_it_was_opened_with():
  generator = Generator(_settings(), small.params(small.omni(_settings())), small.text_tokenizer())
  session, expected = generator.session(PROMPT), list(generator.session(PROMPT))[-1]
  next(session)
  generator.load(small.params(generator.omni, seed=1))
  np.testing.assert_array_equal(list(session)[-1].pixels, expected.pixels)
  assert (list(generator.session(PROMPT))[-1].pixels != expected.pixels).any()


class Counted:
  """The pieces of a generator, and the names of those that were called; `during` is called within each."""

  def __init__(self, pieces, during=lambda name: None):
    self._pieces, self._during, self.called = pieces, during, []

  def __getattr__(self, name):
    def call(*args, **kwargs):
      self.called.append(name)
      self._during(name)
      return getattr(self._pieces, name)(*args, **kwargs)

    return call


@pytest.fixture
def counted(monkeypatch):
  def count(during=lambda name: None) -> Counted:
    monkeypatch.setattr(_generator(), "_pieces", Counted(_generator()._pieces, during))
    return _generator()._pieces

  return count


def _caches() -> int:
  return sum(array.ndim == 4 for array in jax.live_arrays())


@pytest.mark.parametrize("events", range(5))
def test_after_a_cancel_nothing_is_computed_and_nothing_kept(events, counted):
  pieces, before = counted(), _caches()
  session = _generator().session(PROMPT)
  drawn = [next(session) for _ in range(events)]
  called = list(pieces.called)
  assert (_caches() > before) == (0 < events < 5)
  session.cancel()
  session.cancel()
  assert list(session) == [] and pieces.called == called
  del drawn
  assert _caches() == before


def test_a_session_that_is_dropped_lets_go_of_what_it_held():
  list(_generator().session(PROMPT))
  before = _caches()
  session = _generator().session(PROMPT)
  next(session)
  assert _caches() > before
  del session
  assert _caches() == before


def test_a_cancel_from_another_thread_lets_the_piece_under_way_be_the_last(counted):
  def during(name):
    if name == "next_chunk":
      other = threading.Thread(target=session.cancel)
      other.start()
      other.join(10)
      assert not other.is_alive()

  pieces = counted(during)
  session = _generator().session(PROMPT)
  assert [type(event) for event in session] == [Codes] * 2
  assert pieces.called.count("next_chunk") == 1


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_images_that_were_said_stand_in_the_conversation_as_their_codes(guidance):
  """As in training; and guidance compares with the conversation that has no words in its last request."""
  generator, s, v = _generator(), _settings(), _generator().omni.vocabulary
  turns = ["a red star", _picture(0), "now with a blue ring"]
  codes = np.asarray(generator.encode(turns[1][None])).ravel()

  def tokens(turns):
    encoded = read_turns(turns, s, small.text_tokenizer(), v)
    row = encoded.tokens.copy()
    (start,) = encoded.image_starts
    row[start : start + 4] = v.codes + codes
    return [*row, *v.opening(2, 2)]

  @jax.jit
  def draw(params, prompts, lengths, keys):
    written, _ = prefill(generator.omni, params, prompts, lengths, 4)
    sampling = generator.sampling({"guidance": guidance})
    return sample_tokens(generator.omni, params, written, prompts.shape[1], jnp.arange(4), keys, sampling, True)[1]

  forms = [tokens(turns)] if guidance == 1 else [tokens(turns), tokens(turns[1:2])]
  expected = draw(generator.params, *pad(forms, v), row_keys(0, 1))[0] - v.codes
  image = list(generator.session(turns, guidance=guidance))[-1]
  np.testing.assert_array_equal(image.codes.ravel(), expected)


def test_an_image_that_was_said_changes_the_answer():
  pictures = [np.full_like(_picture(0), value) for value in (0, 255)]
  assert (_generator().encode(pictures[0][None]) != _generator().encode(pictures[1][None])).any()
  answers = [list(_generator().session([PROMPT, picture, "now larger"]))[-1].pixels for picture in pictures]
  assert np.abs(answers[0] - answers[1]).max() > 1e-3


def _texts(generator: Generator, seeds: int) -> list[tuple[list[int], int | None]]:
  """The texts of so many seeds behind the prompt, drawn at once and whole, each with the special that it ends with."""
  v, tokenizer, sampling = generator.omni.vocabulary, small.text_tokenizer(), _settings().sampling
  prompts, lengths = pad([[v.user, *tokenizer.encode(PROMPT), v.assistant]] * seeds, v)
  room = 64 - 1 - lengths[0]

  @jax.jit
  def write(params, keys):
    written, _ = prefill(generator.omni, params, prompts, lengths, int(room))
    start, numbers = prompts.shape[1], jnp.arange(room)
    return sample_tokens(generator.omni, params, written, start, numbers, keys, sampling, stream=Stream.WORDS)[1]

  keys = jnp.concatenate([row_keys(seed, 1) for seed in range(seeds)])
  texts = []
  for tokens in np.asarray(write(generator.params, keys)).tolist():
    end = next((i for i, token in enumerate(tokens) if token >= v.text_size), None)
    texts.append((tokens[:end], None if end is None else tokens[end]))
  return texts


@pytest.mark.parametrize("liked", ["pad", "eos", "image"])
def test_text_comes_as_it_is_written_until_it_ends_or_an_image_begins(liked):
  """What comes then is the image of the whole conversation; nothing where the model ends, or has no more room."""
  generator = small.fond_of(liked)
  v, reason = generator.omni.vocabulary, {"pad": "length"}.get(liked, liked)
  ending = {"image": v.image, "eos": v.eos, "length": None}[reason]
  texts = [(seed, ids) for seed, (ids, end) in enumerate(_texts(generator, 30)) if len(ids) > WORDS and end == ending]
  asked = [v.user, *small.text_tokenizer().encode(PROMPT), v.assistant]
  room = room_before_image(_settings()) - len(asked)
  seed, ids = next((seed, ids) for seed, ids in texts if reason != "image" or len(ids) <= room)
  text = small.text_tokenizer().decode(ids)
  events = list(generator.session(PROMPT, seed, "free"))
  ended = next(i for i, event in enumerate(events) if isinstance(event, TextEnd))
  assert events[ended] == TextEnd(text, reason) and ended > 1
  assert all(isinstance(event, Text) for event in events[:ended])
  assert "".join(event.text for event in events[:ended]) == text
  if reason != "image":
    assert len(events) == ended + 1
    return
  image = next(event for event in events if isinstance(event, Image))
  prompts = pad([[*asked, *ids, *v.opening(2, 2)]], v)
  drawing = generator._drawn(*prompts, row_keys(seed, 1), _settings().sampling)
  np.testing.assert_array_equal(image.codes, drawing.codes[0])
  np.testing.assert_allclose(image.pixels, drawing.images[0], atol=1e-5)
  *_, last = events
  assert isinstance(last, TextEnd) and last.reason in ("eos", "length")


def test_a_character_comes_when_all_its_bytes_are_there(monkeypatch):
  generator = _generator()
  ids = small.text_tokenizer().encode("a ⭐ 🌟 é star, and ein großer Stern")
  stars = [*ids, generator.omni.vocabulary.eos]
  assert "\ufffd" in small.text_tokenizer().decode(ids[:WORDS])

  def go_on(params, rows, lengths, start, first, keys, **_):
    piece = stars[first : first + WORDS]
    return rows, np.asarray([piece + [generator.omni.vocabulary.pad] * (WORDS - len(piece))])

  monkeypatch.setattr(generator._pieces, "go_on", go_on)
  *texts, end = generator.session(PROMPT, answer="free")
  assert end == TextEnd("a ⭐ 🌟 é star, and ein großer Stern", "eos")
  assert "".join(piece.text for piece in texts) == end.text and len(texts) > 1
  assert not any("\ufffd" in piece.text for piece in texts)


@pytest.mark.parametrize(
  "turns, said",
  [
    ([], "the conversation is empty"),
    ("  ", "the prompt is empty"),
    (["a star", ""], "the prompt is empty"),
    (["a star", np.zeros((8, 16), np.uint8)], r"\(height, width, 3\) of uint8, got \(8, 16\) of uint8"),
    (["a star", ImageTurn(np.full((2, 2), 64, np.int32), True)], r"\(2, 2\) from 0 to 63, got .* from 64 to 64"),
    (["a star", pathlib.Path("no such picture.png")], "no such picture.png cannot be read: No such file"),
    (["a star", np.zeros((16, 16, 3), np.float32)], "of float32"),
    (["a star", None], "got a NoneType"),
    (["a star"] * 40, "tokens and the model reads at most 55 beside the next image"),
  ],
  ids=str,
)
def test_what_the_model_cannot_read_is_refused_when_the_session_is_opened(turns, said):
  with pytest.raises(UserError, match=said):
    _generator().session(turns)


def test_a_prompt_is_to_a_session_what_it_is_to_the_batch():
  s, tokenizer, v = _settings(), small.text_tokenizer(), _generator().omni.vocabulary
  tokens, lengths = _generator().prompt_tokens([PROMPT])
  assert [*read_turns(PROMPT, s, tokenizer, v).tokens, *v.opening(2, 2)] == tokens[0, : lengths[0]].tolist()


def test_what_guidance_compares_with_is_what_training_saw_without_the_condition():
  s, tokenizer, v, size = _settings(), small.text_tokenizer(), _generator().omni.vocabulary, _settings().buckets[0]
  said = [TextTurn("a red star", False), ImageTurn(_picture(0), True), TextTurn("larger", False)]
  for turns in ([said[0]], said, [*said, ImageTurn(_picture(1), False), TextTurn("here", True)], [said[1]]):
    silent = TextToImage().without_condition([*turns, ImageTurn(_picture(2), True)])
    trained = conversation.encode(silent, tokenizer, v, size).tokens
    prompt = without_words(read_turns(turns, s, tokenizer, v).tokens, v)
    assert prompt.tolist() == trained[: len(prompt)].tolist() and trained[len(prompt)] == v.image


def test_what_the_assistant_has_said_before_is_its_own_turn():
  s, tokenizer, v = _settings(), small.text_tokenizer(), _generator().omni.vocabulary
  picture = _picture(0)
  encoded = read_turns(["a star", ImageTurn(picture, True), "now larger"], s, tokenizer, v)
  assert [turn.role for turn in read_tokens(encoded.tokens, tokenizer, v)] == ["user", "assistant", "user", "assistant"]
  answers = [
    list(_generator().session(["a star", shown, "now larger"]))[-1].pixels
    for shown in (picture, ImageTurn(picture, True))
  ]
  assert np.abs(answers[0] - answers[1]).max() > 1e-3


def test_a_turn_that_the_assistant_has_begun_goes_on():
  s, tokenizer, v = _settings(), small.text_tokenizer(), _generator().omni.vocabulary
  encoded = read_turns(["a star", TextTurn("here it is:", True)], s, tokenizer, v)
  assert encoded.tokens[-1] < v.text_size and (encoded.tokens == v.assistant).sum() == 1
