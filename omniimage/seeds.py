"""Seeds of 64 bits. JAX's own key of a number takes its low half alone, so that 0 and 2^32 would be one seed."""

import jax
import numpy as np
from jax import Array

from omniimage.errors import UserError
from omniimage.ranges import SEEDS, shown

WORD = 2**32


def key(seed: int) -> Array:
  """The random key of a seed from 0 to 2^64 − 1, another one for each; below 2^32 it is `jax.random.key(seed)`."""
  if seed not in SEEDS:
    raise UserError(f"seed={shown(seed)} must be a whole number {SEEDS}")
  high, low = divmod(int(seed), WORD)
  low_alone = jax.random.key(np.uint32(low))
  if not high:
    return low_alone
  # As JAX would with 64-bit types: (high, low), and for generators of more words the same again.
  words = np.resize(np.array([high, low], np.uint32), jax.random.key_data(low_alone).shape)
  return jax.random.wrap_key_data(words)
