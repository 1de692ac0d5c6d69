"""What a model has read and written of conversations, kept on the device, so that what follows is read behind it.

Place i of a row is its token i: what a row holds beyond its length is not seen, and going back is a shorter length.
Where rows of different lengths go on at once, they do so from a common place, and what lies between is not seen.

Axes: B rows, S places, P tokens that are read, n tokens that are drawn, D width.
"""

import flax
import jax
import jax.numpy as jnp
from jax import Array

from omniimage.models.adapter import InputFeatures
from omniimage.models.attention import AttentionMask, grown_caches
from omniimage.models.omni import Omni, Params
from omniimage.sampling.autoregressive import Written, sample_token
from omniimage.sampling.grammar import Grammar
from omniimage.sampling.kernels import arranged
from omniimage.settings import SamplingSettings
from omniimage.streams import Stream, fold


@flax.struct.dataclass
class Rows:
  """Conversations under way.

  Attributes:
    caches: keys and values of every layer.
    states: (B, S, D) final hidden states.
    grammars: where each row is behind each place, (B, S).
  """

  caches: tuple
  states: Array
  grammars: Grammar


@flax.struct.dataclass
class Visible(AttentionMask):
  """Which places a query sees, where no static pattern says it."""

  places: Array | None = None  # (B, P, S) bool

  def dense(self, queries: int, keys: int) -> Array:
    return self.places


def blank_rows(omni: Omni, params: Params, *, batch: int, places: int) -> Rows:
  """Rows that hold nothing yet."""
  width = omni.settings.prior.width
  caches = omni.prior.apply({"params": params["prior"]}, batch, places, method="init_caches")
  nothing = jnp.zeros((batch, places), jnp.int32)
  return Rows(caches, jnp.zeros((batch, places, width), caches[0][0].dtype), Grammar(*[nothing] * 5))


def read(
  omni: Omni,
  params: Params,
  rows: Rows,
  tokens: Array,
  start: Array,
  lengths: Array,
  features: InputFeatures | None = None,
) -> Rows:
  """Reads tokens (B, P), padded on the right, from place `start` on, up to the rows' lengths (B,), with `features` of
  those of them at which the user shows an image, if the prior reads them."""
  places, S = start + jnp.arange(tokens.shape[1]), rows.states.shape[1]
  before = jax.tree.map(lambda at: jnp.where(start > 0, at[:, jnp.maximum(start - 1, 0)], 0), rows.grammars)

  def advance(grammar, column):
    token, place = column
    following = grammar.advance(token, omni.vocabulary)
    following = jax.tree.map(lambda new, old: jnp.where(place < lengths, new, old), following, grammar)
    return following, (grammar.position(), following)

  _, (positions, grammars) = jax.lax.scan(advance, before, (tokens.T, places))
  seen = (jnp.arange(S) <= places[:, None]) & (jnp.arange(S) < lengths[:, None, None])
  mask, positions = Visible(places=seen), jnp.moveaxis(positions, 0, 1)
  hidden, caches = omni.prior.apply(
    {"params": params["prior"]}, tokens, positions, mask, rows.caches, start, features=features
  )
  return _kept(rows, caches, hidden, jax.tree.map(jnp.transpose, grammars), start)


def read_beside(
  omni: Omni,
  params: Params,
  row: Rows,
  tokens: Array,
  start: Array,
  lengths: Array,
  features: InputFeatures | None = None,
) -> Rows:
  """A row (B = 1) and below it the same up to place `start`, where it goes on with `tokens`; arguments as of `read`."""
  other = read(omni, params, row, tokens, start, lengths, features)
  return jax.tree.map(lambda *both: jnp.concatenate(both), row, other)


def first_row(rows: Rows) -> Rows:
  return jax.tree.map(lambda x: x[:1], rows)


def grown(rows: Rows, *, places: int) -> Rows:
  """The same with room for so many places."""
  states, grammars = jax.tree.map(
    lambda x: jnp.pad(x, ((0, 0), (0, places - x.shape[1])) + ((0, 0),) * (x.ndim - 2)), (rows.states, rows.grammars)
  )
  return Rows(grown_caches(rows.caches, places), states, grammars)


def go_on(
  omni: Omni,
  params: Params,
  rows: Rows,
  lengths: Array,
  start: Array,
  first: Array,
  keys: Array,
  *,
  count: int,
  sampling: SamplingSettings,
  codes_only: bool,
  stream: Stream,
) -> tuple[Rows, Array]:
  """Draws the tokens number `first` and after of what is written behind rows of these lengths (B,), from place `start`
  on, which is behind all of them. As `sample_tokens`, of which the other arguments are; returns tokens (B, count)."""
  place = jnp.arange(rows.states.shape[1])
  index = start + first
  seen = (place < lengths[:, None]) | ((place >= start) & (place < index))
  last = jnp.where(first > 0, index - 1, lengths - 1)
  at_last = lambda x: jnp.take_along_axis(x, last.reshape(-1, 1, *[1] * (x.ndim - 2)), axis=1)[:, 0]  # noqa: E731
  written = Written(at_last(rows.states), rows.caches, seen.astype(jnp.int32), jax.tree.map(at_last, rows.grammars))

  given = arranged(params, rows.states.shape[0])

  def step(written, number):
    fresh = jax.vmap(lambda key: fold(key, stream, number))(keys)
    written, token = sample_token(omni, given(), written, start + number, fresh, sampling, codes_only)
    return written, (token, written.hidden, written.grammar)

  written, (tokens, hidden, grammars) = jax.lax.scan(step, written, first + jnp.arange(count))
  grammars = jax.tree.map(jnp.transpose, grammars)
  return _kept(rows, written.caches, jnp.moveaxis(hidden, 0, 1), grammars, index), tokens.T


def _kept(rows: Rows, caches: tuple, hidden: Array, grammars: Grammar, index: Array) -> Rows:
  """Rows with these caches, and with states (B, n, D) and grammars (B, n) from place `index` on."""
  put = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), index, axis=1)  # noqa: E731
  return Rows(caches, put(rows.states, hidden), jax.tree.map(put, rows.grammars, grammars))
