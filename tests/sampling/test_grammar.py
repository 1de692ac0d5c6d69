import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.data.conversation import ImageTurn, TextTurn, encode
from omniimage.sampling.grammar import DONE, Grammar
from omniimage.size import Size
from omniimage.vocabulary import Vocabulary
from tests import small

V = Vocabulary(text_size=10, image_codes=6)


def _advance(tokens):
  grammar, positions = Grammar.start(1), []
  for token in tokens:
    positions.append(np.asarray(grammar.position()[0]))
    grammar = grammar.advance(jnp.asarray([token]), V)
  return grammar, np.stack(positions)


def _allowed(tokens):
  return set(np.flatnonzero(_advance(tokens)[0].allowed(V)[0]))


def test_the_grammar_allows_exactly_what_may_follow():
  text = set(range(10)) | {V.eos, V.image}
  sizes, codes = set(range(V.sizes, V.codes)), set(range(V.codes, V.total))
  opening = [3, V.image, V.size(1), V.size(2)]
  assert _allowed([3]) == text
  assert _allowed([3, V.image]) == sizes
  assert _allowed([3, V.image, V.size(1)]) == sizes
  assert _allowed(opening) == codes
  assert _allowed([*opening, V.codes]) == codes
  assert _allowed([*opening, V.codes, V.codes + 3]) == {V.end_image}
  assert _allowed([*opening, V.codes, V.codes + 3, V.end_image]) == text
  assert _allowed([V.user, 3, V.assistant]) == _allowed([V.assistant]) == text
  assert _allowed([V.assistant, 3, V.eos, V.user, 3, V.assistant]) == text
  assert _allowed([3, V.eos]) == {V.pad}
  assert _allowed([3, V.eos, V.pad, V.pad]) == {V.pad}


def test_positions_of_the_grammar_are_those_of_the_data():
  s = small.settings()
  v = small.omni(s).vocabulary
  image = np.zeros((24, 16, 3), np.uint8)
  turns = [TextTurn("a red star", False), ImageTurn(image, True), TextTurn("now larger", False)]
  turns += [ImageTurn(image, False), TextTurn("here", True), ImageTurn(image, True)]
  encoded = encode(turns, small.text_tokenizer(), v, Size(3, 2, 8))

  def step(grammar, token):
    return grammar.advance(token[None], v), grammar.position()[0]

  grammar, positions = jax.lax.scan(step, Grammar.start(1), jnp.asarray(encoded.tokens))
  np.testing.assert_array_equal(positions, encoded.positions)
  assert int(grammar.expects[0]) == DONE


def test_what_is_learnt_is_what_the_grammar_lets_the_model_write():
  image = np.zeros((1, 2, 3), np.uint8)
  turns = [TextTurn("", False), TextTurn("", True), ImageTurn(image, True), ImageTurn(image, False)]
  turns += [ImageTurn(image, True), TextTurn("", False), TextTurn("", True)]
  encoded = encode(turns, small.text_tokenizer(), V, Size(1, 2, 1))
  for place in np.flatnonzero(encoded.loss_weights):
    assert encoded.tokens[place] in _allowed(encoded.tokens[:place].tolist())
  given = encoded.tokens[encoded.loss_weights == 0]
  assert [token for token in given.tolist() if token in (V.user, V.assistant)] == [V.user, V.assistant] * 3
  assert V.eos not in given


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_sampled_under_the_mask_is_a_sentence_of_the_grammar(seed):
  rng, tokens, grammar = np.random.default_rng(seed), [], Grammar.start(1)
  allowed_fn, advance = jax.jit(lambda g: g.allowed(V)), jax.jit(lambda g, t: g.advance(t, V))
  for _ in range(60):
    allowed = np.flatnonzero(allowed_fn(grammar)[0])
    allowed = allowed[(allowed < V.sizes + 3) | (allowed >= V.codes)]  # small images, so that several fit
    tokens.append(int(rng.choice(allowed)))
    grammar = advance(grammar, jnp.asarray([tokens[-1]]))
  rest = list(tokens)
  while rest and (token := rest.pop(0)) != V.eos:
    if token == V.image:
      rows, columns = (rest.pop(0) - V.sizes + 1 for _ in range(2)) if len(rest) > 2 else (0, 0)
      count = min(rows * columns, len(rest))
      assert all(code >= V.codes for code in rest[:count])
      rest = rest[count:]
      assert not rest or not rows or rest.pop(0) == V.end_image
    else:
      assert token < V.text_size
  assert all(token == V.pad for token in rest)
