"""Codebooks that are learnt: what each gives, whom its gradient reaches, and that it learns."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from omniimage.models.quantizers import LEARNT, Quantizer
from omniimage.models.quantizers.entropy import entropy_penalty
from omniimage.models.quantizers.fsq import FSQ
from omniimage.settings import CODEBOOKS

CODES, CHANNELS, BETA = 64, 4, 0.25
PICTURES, PIXELS = 32, 48


def a_quantizer(name: str, codes: int = CODES):
  """The module, a codebook and what an encoder might give."""
  module, z = LEARNT[name](codes, CHANNELS, BETA), 3 * jax.random.normal(jax.random.key(1), (5, 7, CHANNELS))
  return module, module.init(jax.random.key(0), z), z


def test_every_name_of_the_settings_has_a_row():
  assert tuple(LEARNT) == CODEBOOKS


@pytest.mark.parametrize("name", CODEBOOKS)
def test_codes_name_the_very_features_that_the_call_gave(name):
  module, variables, z = a_quantizer(name)
  given = jax.jit(module.apply)(variables, z)
  np.testing.assert_array_equal(module.apply(variables, given.codes, method="features"), given.features)
  assert given.codes.dtype == jnp.int32 and given.codes.min() >= 0 and len(np.unique(given.codes)) > 10
  assert given.codes.shape == given.auxiliary.shape == (5, 7) and given.affinity.shape == (5, 7, CODES)
  np.testing.assert_array_equal(jnp.argmax(given.affinity, axis=-1), given.codes)


def test_vqs_code_is_the_nearest_on_the_sphere_and_its_loss_the_two_halves():
  module, variables, z = a_quantizer("vq")
  given, codebook, z = module.apply(variables, z), *(np.asarray(x) for x in (variables["params"]["codebook"], z))
  codebook, z = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (codebook, z))
  squared = np.sum(np.square(z[..., None, :] - codebook), axis=-1)
  np.testing.assert_array_equal(given.codes, squared.argmin(-1))
  np.testing.assert_allclose(given.auxiliary, (1 + BETA) * squared.min(-1) / CHANNELS, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(given.affinity, -squared, atol=1e-5)


def test_a_codebook_of_vq_means_the_same_at_any_length_of_its_codes():
  module, variables, z = a_quantizer("vq")
  longer = jax.tree.map(lambda codebook: codebook * jnp.linspace(0.5, 4, CODES)[:, None], variables)
  one, other = (module.apply(given, z) for given in (variables, longer))
  np.testing.assert_array_equal(one.codes, other.codes)
  np.testing.assert_allclose(one.features, other.features, atol=1e-6)


def test_ibqs_loss_is_the_double_quantization_loss():
  module, variables, z = a_quantizer("ibq")
  given, codebook = module.apply(variables, z), variables["params"]["codebook"]
  np.testing.assert_array_equal(given.codes, jnp.argmax(z @ codebook.T, axis=-1))
  squared = jnp.mean(jnp.square(codebook[given.codes] - z), axis=-1)
  np.testing.assert_allclose(given.auxiliary, (2 + BETA) * squared, rtol=1e-5)


@pytest.mark.parametrize("name", CODEBOOKS)
def test_what_features_are_used_for_reaches_the_encoder(name):
  module, variables, z = a_quantizer(name)
  gradient = jax.grad(lambda z: jnp.sum(jnp.square(module.apply(variables, z).features - 1)))(z)
  assert np.all(np.linalg.norm(gradient, axis=-1) > 1e-6)


def test_ibq_moves_every_code_and_vq_those_that_were_chosen():
  def moved(name: str) -> tuple[np.ndarray, np.ndarray]:
    module, variables, z = a_quantizer(name)

    def loss(variables):
      given = module.apply(variables, z)
      return jnp.sum(jnp.square(given.features - 1)) + jnp.sum(given.auxiliary)

    gradient = jax.grad(loss)(variables)["params"]["codebook"]
    chosen = np.isin(np.arange(CODES), module.apply(variables, z).codes)
    return np.linalg.norm(gradient, axis=-1) > 0, chosen

  all_move, some = moved("ibq")
  assert all_move.all() and not some.all()
  chosen_move, chosen = moved("vq")
  np.testing.assert_array_equal(chosen_move, chosen)


def test_the_entropy_penalty_of_known_choices():
  even = jnp.full(4, 0.25)
  penalty = functools.partial(entropy_penalty, weights_N=even)
  sure = 100 * jnp.eye(4)
  assert penalty(sure) == pytest.approx(-np.log(4), abs=1e-5), "each sure, all codes used"
  assert penalty(sure[jnp.zeros(4, int)]) == pytest.approx(0, abs=1e-5), "each sure of the same"
  assert penalty(jnp.zeros((4, 4))) == pytest.approx(0, abs=1e-5), "none sure"
  assert entropy_penalty(sure, jnp.array([0.5, 0.5, 0, 0])) == pytest.approx(-np.log(2), abs=1e-5), "two count"
  assert np.isfinite(jax.grad(lambda affinity: penalty(affinity))(sure)).all()


class Autoencoder(nn.Module):
  """One matrix, a quantizer, one matrix: what the codes do not say cannot be made up for."""

  quantizer: Quantizer

  @nn.compact
  def __call__(self, pictures):
    given = self.quantizer(nn.Dense(CHANNELS)(pictures))
    return nn.Dense(PIXELS)(given.features), given


def pictures() -> jax.Array:
  """Different mixtures of four strokes, all of one strength."""
  rng = np.random.default_rng(0)
  mixed = rng.standard_normal((PICTURES, CHANNELS))
  mixed /= np.linalg.norm(mixed, axis=-1, keepdims=True)
  return jnp.asarray(mixed @ rng.standard_normal((CHANNELS, PIXELS)), jnp.float32)


def learnt(quantizer: Quantizer, entropy: float, frozen: bool = False) -> tuple[float, int]:
  """What is left of the pictures' variance in the end, and how many codes they have then."""
  model, shown = Autoencoder(quantizer), pictures()
  optimizer = optax.adam(1e-2, b2=0.95)

  def loss(variables):
    params = dict(variables["params"])
    if frozen:
      params["quantizer"] = jax.lax.stop_gradient(params["quantizer"])
    made, given = model.apply({"params": params}, shown)
    error = jnp.mean(jnp.square(made - shown)) / jnp.mean(jnp.square(shown))
    total = error if given.auxiliary is None else error + jnp.mean(given.auxiliary)
    if entropy:
      total += entropy * entropy_penalty(given.affinity, jnp.full(PICTURES, 1 / PICTURES))
    return total, (error, given.codes)

  def update(carry, _):
    variables, state = carry
    gradient, (error, codes) = jax.grad(loss, has_aux=True)(variables)
    updates, state = optimizer.update(gradient, state, variables)
    return (optax.apply_updates(variables, updates), state), (error, codes)

  @jax.jit
  def run(variables):
    return jax.lax.scan(update, (variables, optimizer.init(variables)), None, 600)[1]

  errors, codes = run(model.init(jax.random.key(0), shown))
  return float(errors[-1]), len(np.unique(codes[-1]))


BETTER = 0.05  # of the variance: half of what a codebook that stays as it began leaves, or less
KINDS = {
  "fsq": (FSQ((7,) * CHANNELS), 0.0),
  "vq": (LEARNT["vq"](CODES, CHANNELS, BETA), 0.0),
  "ibq": (LEARNT["ibq"](CODES, CHANNELS, BETA), 0.05),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_quantizer_learns_different_pictures(name):
  quantizer, entropy = KINDS[name]
  error, codes = learnt(quantizer, entropy)
  assert error < BETTER and codes > 0.85 * PICTURES


@pytest.mark.parametrize("name", CODEBOOKS)
def test_a_codebook_that_stays_as_it_began_does_not_learn_them(name):
  quantizer, entropy = KINDS[name]
  assert learnt(quantizer, entropy, frozen=True)[0] > 1.5 * BETTER


def test_with_the_entropy_penalty_ibq_has_no_dead_code_and_without_it_some():
  quantizer = LEARNT["ibq"](16, CHANNELS, BETA)
  assert learnt(quantizer, 0.1)[1] == 16 and learnt(quantizer, 0.0)[1] < 14


def test_codes_of_ibq_begin_at_one_length_so_that_none_hides_another():
  _, variables, _ = a_quantizer("ibq")
  np.testing.assert_allclose(np.linalg.norm(variables["params"]["codebook"], axis=-1), CHANNELS**0.5, rtol=1e-5)
