"""A shuffle that remembers nothing: the record at any place of an epoch, from the place alone.

A Feistel network (Luby & Rackoff 1988) is a permutation whatever its round functions are. Over a × b places, with a and
b about √n, it hashes one coordinate and adds that to the other, round after round; where the places are more than the n
records, one that leads beyond them is followed until it comes back (cycle walking; Black & Rogaway 2002). So a place
costs a few dozen operations of numpy, and the shuffle of 10⁹ records as little memory as that of ten.
"""

import functools
import math

import numpy as np

from omniimage.streams import Stream, generator

ROUNDS = 8  # four see to pseudorandomness where round functions are random; these are hashes, and n may be small


def permuted(places: np.ndarray, n: int, seed: int, *index: int) -> np.ndarray:
  """The records, of [0, n), at some places, of [0, n), of an epoch: (k,) to (k,) int64. `index` names the epoch."""
  a, keys = math.isqrt(n - 1) + 1, _keys(seed, *index)
  b = -(-n // a)
  records = _network(np.asarray(places, np.uint64), a, b, keys)
  beyond = records >= n
  while beyond.any():
    records[beyond] = _network(records[beyond], a, b, keys)
    beyond = records >= n
  return records.astype(np.int64)


def _network(x: np.ndarray, a: int, b: int, keys: np.ndarray) -> np.ndarray:
  """A permutation of [0, a·b)."""
  a, b = np.uint64(a), np.uint64(b)
  left, right = np.divmod(x, b)
  for even, odd in keys.reshape(-1, 2):
    left = (left + _hash(right ^ even)) % a
    right = (right + _hash(left ^ odd)) % b
  return left * b + right


def _hash(x: np.ndarray) -> np.ndarray:
  """The upper half of SplitMix64's finalizer (Steele et al. 2014): added to a coordinate it does not overflow."""
  x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return x >> np.uint64(32)


@functools.lru_cache(maxsize=64)
def _keys(seed: int, *index: int) -> np.ndarray:
  return generator(Stream.ORDER, seed, *index).integers(2**64, size=ROUNDS, dtype=np.uint64)
