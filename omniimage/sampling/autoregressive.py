"""Writing tokens one by one: prefill, cached steps, guidance, temperature, top-k, top-p, min-p, and the grammar's
mask.

Prompts are padded on the right to one length and new tokens are appended behind the padding, so that all rows write to
the same place of the cache; what a row sees is a mask, and where a token stands is its position, neither of which is
its index. Axes: B rows, P prompt length, S cache length, D width, V ids.
"""

import math
from collections.abc import Callable

import flax
import jax
import jax.numpy as jnp
from jax import Array

from omniimage.models.adapter import InputFeatures
from omniimage.models.attention import AttentionMask, Causal, Full, grown_caches
from omniimage.models.omni import Omni, Params
from omniimage.sampling.grammar import Grammar
from omniimage.sampling.kernels import arranged
from omniimage.settings import SamplingSettings
from omniimage.streams import Stream, fold


@flax.struct.dataclass
class Written:
  """A sequence under way.

  Attributes:
    hidden: (B, D) state that predicts the next token.
    caches: keys and values of every layer, of S places.
    seen: (B, S) int32, 1 where a cache entry is a token of the row.
    grammar: where each row is.
  """

  hidden: Array
  caches: tuple
  seen: Array
  grammar: Grammar


def prefill(
  omni: Omni,
  params: Params,
  prompt: Array,
  lengths: Array,
  new_tokens: int,
  features: InputFeatures | None = None,
) -> tuple[Written, Array]:
  """Reads the prompts (B, P), padded on the right, of the given lengths (B,), all at least 1, with `features` of the
  images that the user has shown, if the prior reads them.

  Returns:
    The sequences, with room for `new_tokens` more, and the prompts' hidden states (B, P, D).
  """
  B, P = prompt.shape
  exists = jnp.arange(P) < lengths[:, None]

  def read(grammar, column):
    token, is_there = column
    following = grammar.advance(token, omni.vocabulary)
    kept = jax.tree.map(lambda new, old: jnp.where(is_there, new, old), following, grammar)
    return kept, grammar.position()

  grammar, positions = jax.lax.scan(read, Grammar.start(B), (prompt.T, exists.T))
  seen = exists.astype(jnp.int32)
  caches = omni.prior.apply({"params": params["prior"]}, B, P, method="init_caches")
  mask, positions = AttentionMask(Causal(), seen, seen), jnp.moveaxis(positions, 0, 1)
  hidden, caches = omni.prior.apply({"params": params["prior"]}, prompt, positions, mask, caches, features=features)
  caches, seen = grown_caches(caches, P + new_tokens), jnp.pad(seen, ((0, 0), (0, new_tokens)))
  last = jnp.take_along_axis(hidden, lengths[:, None, None] - 1, axis=1)[:, 0]
  return Written(last, caches, seen, grammar), hidden


def append(omni: Omni, params: Params, written: Written, token: Array, index: Array) -> Written:
  """Writes one token (B,) of every row at cache place `index`."""
  B = token.shape[0]
  seen = jax.lax.dynamic_update_slice_in_dim(written.seen, jnp.ones((B, 1), jnp.int32), index, axis=1)
  hidden, caches = omni.prior.apply(
    {"params": params["prior"]},
    token[:, None],
    written.grammar.position()[:, None],
    AttentionMask(Full(), jnp.ones((B, 1), jnp.int32), seen),
    written.caches,
    index,
  )
  return Written(hidden[:, 0], caches, seen, written.grammar.advance(token, omni.vocabulary))


def sample_tokens(
  omni: Omni,
  params: Params | Callable[[], Params],
  written: Written,
  start: int,
  numbers: Array,
  keys: Array,
  sampling: SamplingSettings,
  codes_only: bool = False,
  stream: Stream = Stream.TOKENS,
  given_tokens: Array | None = None,
) -> tuple[Written, Array]:
  """Draws the next n tokens under the grammar. Their numbers alone choose the randomness, so a sequence drawn in pieces
  is the one drawn whole.

  Args:
    params: unstacked, or as `arranged` gives them.
    written: of `prefill`. With guidance ≠ 1 it has 2B rows: the prompts, then the same without their text.
    start: cache place of the first token behind the prompt, P.
    numbers: (n,) of the tokens, counted from 0 behind the prompt.
    keys: (B,) random keys, one a row.
    codes_only: all new tokens are known to be image codes, so that only that table is read.
    given_tokens: (B, n), written as they are and not drawn, but where they are negative.

  Returns:
    The sequences, and (B, n) int32; after a row's `<eos>`, padding.
  """
  given = arranged(params, written.hidden.shape[0])

  def step(written, number_and_given):
    number, given_token = number_and_given
    fresh = jax.vmap(lambda key: fold(key, stream, number))(keys)
    return sample_token(omni, given(), written, start + number, fresh, sampling, codes_only, given_token)

  each = numbers, None if given_tokens is None else given_tokens.T
  written, tokens = jax.lax.scan(step, written, each)
  return written, tokens.T


def sample_token(
  omni: Omni,
  params: Params,
  written: Written,
  index: Array,
  keys: Array,
  sampling: SamplingSettings,
  codes_only: bool,
  given_token: Array | None = None,
) -> tuple[Written, Array]:
  """Draws one token (B,) of every row, from a key a row, and writes it at cache place `index`; where one is given, none
  is drawn."""
  guided, first = sampling.guidance != 1, omni.vocabulary.codes if codes_only else 0
  logits = _logits(omni, params, written.hidden, codes_only)
  grammar = written.grammar
  if guided:
    conditional, unconditional = jnp.split(logits, 2)
    logits = unconditional + sampling.guidance * (conditional - unconditional)
    grammar = jax.tree.map(lambda x: jnp.split(x, 2)[0], grammar)
  logits = jnp.where(grammar.allowed(omni.vocabulary)[:, first:], logits, -jnp.inf)
  token = first + sample_ids(logits, keys, sampling)
  if given_token is not None:
    token = jnp.where(given_token < 0, token, given_token)
  both = jnp.concatenate([token, token]) if guided else token
  return append(omni, params, written, both, index), token


def _logits(omni: Omni, params: Params, hidden: Array, codes_only: bool) -> Array:
  kinds = ("image",) if codes_only else ("text", "image")
  tables = [omni.prior.apply({"params": params["prior"]}, hidden, kind, method="logits") for kind in kinds]
  return jnp.concatenate(tables, axis=-1)


def sample_ids(logits: Array, keys: Array, sampling: SamplingSettings) -> Array:
  """One id a row from (B, V) logits, each row with its own key (B,). Temperature 0 takes the likeliest, and so
  does, in the limit, what float32 hardly tells from it."""
  if sampling.temperature == 0:
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)
  below = logits - jnp.max(logits, axis=-1, keepdims=True)
  heated = jnp.where(below == 0, 0.0, below / sampling.temperature)  # −∞ at worst, never 0 ÷ 0
  logits = keep_likely(heated, sampling.top_k, sampling.top_p, sampling.min_p)
  return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


def keep_likely(logits: Array, top_k: int, top_p: float, min_p: float = 0.0) -> Array:
  """Masks all but the `top_k` likeliest ids; of these, all but the smallest set with probability `top_p` (Holtzman et
  al. 2020); and all whose probability is less than `min_p` of the likeliest's (Nguyen et al. 2024, arXiv 2407.01082).

  The likeliest stays, whatever these are."""
  if 0 < top_k < logits.shape[-1]:
    smallest = jax.lax.top_k(logits, top_k)[0][..., -1:]
    logits = jnp.where(logits < smallest, -jnp.inf, logits)
  if top_p < 1:
    ordered = jnp.sort(logits, axis=-1)[..., ::-1]
    probabilities = jax.nn.softmax(ordered)
    # An id stays while the likelier ones together have less than top_p. The likeliest stays whatever is rounded.
    kept = (jnp.cumsum(probabilities, axis=-1) - probabilities < top_p).at[..., 0].set(True)
    smallest = jnp.min(jnp.where(kept, ordered, jnp.inf), axis=-1, keepdims=True)
    logits = jnp.where(logits < smallest, -jnp.inf, logits)
  if min_p > 0:
    below = logits - jnp.max(logits, axis=-1, keepdims=True)
    logits = jnp.where(below < math.log(min_p), -jnp.inf, logits)
  return logits
