"""The sequence grammar as a state machine: what may come next, and at which position.

<user> part … part <assistant> part … part <eos>, turn after turn; a part is text or <image> → rows → columns → exactly
rows × columns codes in raster order → </image>. The model writes the assistant's turn: what begins a turn, and all that
the user says, it is given. Axes: B rows, V ids of the vocabulary.
"""

import flax
import jax.numpy as jnp
import numpy as np
from jax import Array

from omniimage.vocabulary import Vocabulary

TEXT, ROWS, COLUMNS, CODE, END_IMAGE, DONE = range(6)


@flax.struct.dataclass
class Grammar:
  """Where each row is. All (B,) int32.

  Attributes:
    expects: kind of the next token, one of the constants above.
    rows, columns, written: of the image being written.
    time: time of the next token; within an image, of its first code.
  """

  expects: Array
  rows: Array
  columns: Array
  written: Array
  time: Array

  @classmethod
  def start(cls, batch: int) -> "Grammar":
    return cls(*(jnp.zeros((batch,), jnp.int32) for _ in range(5)))

  def position(self) -> Array:
    """(B, 3) of (time, row, column) of the next token."""
    columns = jnp.maximum(self.columns, 1)
    place = jnp.stack([jnp.zeros_like(self.time), self.written // columns, self.written % columns], axis=-1)
    return self.time[:, None] + jnp.where(self.expects[:, None] == CODE, place, 0)

  def allowed(self, vocabulary: Vocabulary) -> Array:
    """(B, V) bool: ids that the assistant may write next, and padding once its turn has ended."""
    v, ids, expects = vocabulary, jnp.arange(vocabulary.total), self.expects[:, None]
    is_text = ((ids < v.text_size) & ~_among(v.unwritten, v.total)) | (ids == v.eos) | (ids == v.image)
    is_size, is_code = (ids >= v.sizes) & (ids < v.codes), ids >= v.codes
    return jnp.select(
      [expects == TEXT, (expects == ROWS) | (expects == COLUMNS), expects == CODE, expects == END_IMAGE],
      [is_text, is_size, is_code, ids == v.end_image],
      ids == v.pad,
    )

  def advance(self, token: Array, vocabulary: Vocabulary) -> "Grammar":
    """The state after `token` (B,). Where the turn has ended it stays as it is until another begins."""
    v, expects = vocabulary, self.expects
    begins = (token == v.user) | (token == v.assistant)
    size = token - v.sizes + 1
    rows = jnp.where(expects == ROWS, size, self.rows)
    columns = jnp.where(expects == COLUMNS, size, self.columns)
    written = jnp.where(expects == CODE, self.written + 1, 0)
    complete = (expects == CODE) & (written == rows * columns)
    after_text = jnp.select([token == v.eos, token == v.image], [DONE, ROWS], TEXT)
    after = jnp.select(
      [begins, expects == TEXT, expects == ROWS, expects == COLUMNS, complete, expects == CODE, expects == END_IMAGE],
      [TEXT, after_text, COLUMNS, CODE, END_IMAGE, CODE, TEXT],
      DONE,
    )
    stays = (expects == DONE) & ~begins
    elapsed = jnp.select([stays, complete, expects == CODE], [0, jnp.maximum(rows, columns), 0], 1)
    return Grammar(after.astype(jnp.int32), rows, columns, written, self.time + elapsed)


def _among(ids: tuple[int, ...], total: int) -> np.ndarray:
  """(V,) bool, true at these ids."""
  among = np.zeros(total, bool)
  among[list(ids)] = True
  return among
