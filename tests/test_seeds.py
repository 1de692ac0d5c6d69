import jax
import numpy as np
import pytest

from omniimage import seeds
from omniimage.errors import UserError

LARGE = (2**32, 2**32 + 1, 2**33, 2**63, 2**64 - 2**32, 2**64 - 1)


def _words(seed: int) -> tuple[int, ...]:
  return tuple(np.asarray(jax.random.key_data(seeds.key(seed))).tolist())


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**31 - 1, 2**31, 2**32 - 1])
def test_the_key_of_a_small_seed_is_jaxs_own(seed):
  own = jax.random.key(seed)
  assert seeds.key(seed).dtype == own.dtype
  assert _words(seed) == tuple(np.asarray(jax.random.key_data(own)).tolist())


def test_every_seed_of_64_bits_has_a_key_of_its_own():
  every = (0, 1, 2**32 - 1, *LARGE)
  assert len({_words(seed) for seed in every}) == len(every)


@pytest.mark.parametrize("seed", LARGE)
def test_the_key_of_a_large_seed_is_the_one_that_jax_has_with_64_bits(seed):
  with jax.enable_x64(True):
    own = np.asarray(jax.random.key_data(jax.random.key(np.uint64(seed))))
  assert _words(seed) == tuple(own.tolist())


def test_a_key_can_be_made_while_tracing():
  traced = jax.make_jaxpr(lambda: jax.random.key_data(seeds.key(2**40)))()
  assert traced.out_avals[0].shape == (2,)


@pytest.mark.parametrize("seed", [-1, 2**64, 2**1000])
def test_a_seed_of_more_bits_is_refused(seed):
  with pytest.raises(UserError, match="must be a whole number from 0 to 18,446,744,073,709,551,615"):
    seeds.key(seed)
