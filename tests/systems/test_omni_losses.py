import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.models.chunks import DoubledChunks
from omniimage.models.layers import patchify
from omniimage.models.omni import place_codes
from omniimage.settings import Settings, StageSettings
from omniimage.size import Size
from omniimage.systems.omni import OmniSystem
from omniimage.systems.omni_painting import paint_errors
from omniimage.training.step import accumulated
from tests import small

ROWS = 8
EVERYTHING = dict(text=0.5, image=1.0, diffusion=2.0, pixel=3.0, z=0.01)
# Chunk rows, offset and columns: two stripes, the whole canvas, stripes of 1, 2 and 1 rows, and blocks likewise.
LAYOUTS = ((2, 0, 0), (0, 0, 0), (2, 1, 0), (2, 1, 2))


def _settings(**changes) -> Settings:
  return small.settings(**{**small.SHALLOW, **changes})


def _stage(s: Settings, sampled_codes: float = 0.0, **weights) -> StageSettings:
  """Of these loss weights; every part that they teach moves."""
  taught = {name: any(map(weights.get, part.teachers)) for name, part in OmniSystem.parts.items()}
  rates = {name: float(moves) for name, moves in taught.items()}
  return dataclasses.replace(s.stages["joint"], weights=weights, sampled_codes=sampled_codes, rates=rates)


@functools.cache
def _params():
  return small.params(small.omni(_settings()))


@functools.cache
def _batch(index: int = 0):
  return small.batch(_settings(), ROWS, index)


def _keys(seed: int = 0):
  return jax.random.split(jax.random.key(seed), ROWS)


def _total(batch):
  return small.system(_settings()).totals(batch)


def _loss_fn(s: Settings, stage: StageSettings):
  """(params, batch, keys, layout, total) → (loss, terms)."""
  return functools.partial(small.system(s).losses, stage)


def _empty(batch):
  """Rows of nothing but padding, as many as the batch has."""
  pad = small.omni(_settings()).vocabulary.pad
  return {name: np.full_like(array, pad) if name == "tokens" else np.zeros_like(array) for name, array in batch.items()}


def _conversations(batch) -> list[tuple[int, np.ndarray]]:
  """(row, places) of every conversation."""
  segments = batch["segments"]
  return [(b, np.flatnonzero(segments[b] == n)) for b in range(len(segments)) for n in range(1, segments[b].max() + 1)]


def _one_conversation_a_row(batch):
  alone = _empty(batch)
  for row, (b, places) in enumerate(_conversations(batch)):
    for name in ("tokens", "positions", "loss_weights"):
      alone[name][row, : len(places)] = batch[name][b, places]
    alone["segments"][row, : len(places)] = 1
    inside = batch["image_mask"][b] & np.isin(batch["image_start"][b], places)
    for slot, i in enumerate(np.flatnonzero(inside)):
      for name in ("images", "image_mask", "image_start", "image_is_target"):
        alone[name][row, slot] = batch[name][b, i]
      alone["image_start"][row, slot] -= places[0]
  return alone


def _half_empty():
  """The first rows of a batch that make up to `ROWS` conversations; the rest of the rows are padding."""
  batch = _batch()
  kept = np.arange(ROWS) < 4
  empty = _empty(batch)
  return {k: np.where(kept.reshape(-1, *[1] * (v.ndim - 1)), v, empty[k]) for k, v in batch.items()}


def test_packed_loss_equals_unpacked():
  """The same conversations, several a row or each alone: every term and every gradient is the same."""
  s = _settings(**small.WITHOUT_NOISE)
  packed = _half_empty()
  alone = _one_conversation_a_row(packed)
  assert 4 < len(_conversations(packed)) == len(_conversations(alone)) <= ROWS
  assert packed["image_mask"].sum() == alone["image_mask"].sum() > 4
  gradient = jax.jit(jax.value_and_grad(_loss_fn(s, _stage(s, **EVERYTHING)), has_aux=True))
  results = [gradient(_params(), b, _keys(), jnp.int32(0), _total(b)) for b in (packed, alone)]
  ((loss, terms), gradients), ((loss_alone, terms_alone), gradients_alone) = results
  assert set(terms) == {"text", "image", "diffusion", "pixel"} and all(value > 0 for value in terms.values())
  for name in terms:
    np.testing.assert_allclose(terms[name], terms_alone[name], rtol=1e-5, err_msg=name)
  np.testing.assert_allclose(loss, loss_alone, rtol=1e-5)
  for (path, one), other in zip(jax.tree.leaves_with_path(gradients), jax.tree.leaves(gradients_alone)):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * (np.abs(one).max() + 1e-6), err_msg=str(path))


@pytest.mark.parametrize("size", [Size(2, 2, 8), Size(2, 3, 8)])
def test_the_terms_of_text_and_codes_are_their_cross_entropies_given_all_that_stands_before(size):
  s = _settings()
  model, batch, params = small.omni(s), small.noise(s, size, ROWS), _params()
  v = model.vocabulary

  @jax.jit
  def plain(params, batch):
    """Means of nll and of log² Z over the text and over the codes, from all the logits of whole sequences."""
    params = model.view(params)
    codes = model.encode(params, batch["images"].astype(jnp.float32) / 127.5 - 1).codes
    flat = codes.reshape(*codes.shape[:2], -1)
    tokens = place_codes(batch["tokens"], flat, batch["image_start"], batch["image_mask"], v.codes)
    hidden = model.hidden(params, tokens, batch["positions"], batch["segments"])[:, :-1]
    targets, weights, means = tokens[:, 1:], batch["loss_weights"][:, 1:], {}
    for kind, chosen, first in (("text", targets < v.codes, 0), ("image", targets >= v.codes, v.codes)):
      logits = model.prior.apply({"params": params["prior"]}, hidden, kind, method="logits")
      log_z = jax.nn.logsumexp(logits, axis=-1)
      of_target = jnp.take_along_axis(logits, jnp.where(chosen, targets - first, 0)[..., None], axis=-1)[..., 0]
      for name, value in ((kind, log_z - of_target), (f"{kind} z", log_z**2)):
        means[name] = jnp.sum(value * weights * chosen) / jnp.sum(weights * chosen)
    return means

  expected = {name: float(value) for name, value in plain(params, batch).items()}
  stage = _stage(s, text=0.5, image=2.0, z=0.1)
  loss, terms = jax.jit(_loss_fn(s, stage))(params, batch, _keys(), jnp.int32(0), _total(batch))
  assert {name: float(value) for name, value in terms.items()} == {
    kind: pytest.approx(expected[kind], rel=1e-5) for kind in ("text", "image")
  }
  of_text, of_codes = (expected[kind] + 0.1 * expected[f"{kind} z"] for kind in ("text", "image"))
  assert float(loss) == pytest.approx(0.5 * of_text + 2.0 * of_codes, rel=1e-5)


@functools.cache
def _noisy():
  """Everything at once, with noise, dropping and sampled codes: the settings, and the compiled loss."""
  chunks = dict(zip(("decoder.chunk_rows", "decoder.chunk_offsets", "decoder.chunk_columns"), zip(*LAYOUTS)))
  s = _settings(**chunks, **{"decoder.drop_tokens": 0.3, "decoder.drop_text": 0.3})
  return s, jax.jit(_loss_fn(s, _stage(s, sampled_codes=0.5, **EVERYTHING)))


def test_the_noise_of_a_row_does_not_depend_on_which_rows_are_beside_it():
  _, loss_fn = _noisy()
  batch, total = _batch(), _total(_batch())
  only_first = np.arange(ROWS)[:, None] == 0

  def painted(rows, keys):
    """Error of the images of the first row, with `rows` of the batch under `keys`."""
    changed = {name: array[rows] for name, array in batch.items()}
    changed["image_is_target"] = changed["image_is_target"] & only_first
    return float(loss_fn(_params(), changed, keys, jnp.int32(0), total)[1]["diffusion"])

  rows, keys = np.arange(ROWS), _keys()
  first = painted(rows, keys)
  assert painted(np.r_[0, rows[:0:-1]], keys) == pytest.approx(first, rel=1e-6)
  assert painted(np.r_[0, rows[:0:-1]], jnp.concatenate([keys[:1], _keys(1)[1:]])) == pytest.approx(first, rel=1e-6)
  assert painted(rows, jnp.concatenate([_keys(1)[:1], keys[1:]])) != pytest.approx(first, rel=1e-3)


def test_rows_in_another_order_give_the_same_loss_when_their_keys_go_with_them():
  _, loss_fn = _noisy()
  order = np.random.default_rng(0).permutation(ROWS)
  batch, keys = _batch(), _keys()
  moved = {name: array[order] for name, array in batch.items()}
  loss, _ = loss_fn(_params(), batch, keys, jnp.int32(2), _total(batch))
  assert float(loss_fn(_params(), moved, keys[order], jnp.int32(2), _total(moved))[0]) == pytest.approx(float(loss))
  assert float(loss_fn(_params(), moved, keys, jnp.int32(2), _total(moved))[0]) != pytest.approx(float(loss), rel=1e-3)


def test_what_lies_in_unused_image_slots_does_not_matter():
  _, loss_fn = _noisy()
  batch = _half_empty()
  unused = ~batch["image_mask"]
  assert unused.any()
  filled = dict(batch, images=batch["images"].copy(), image_is_target=batch["image_is_target"] | unused)
  filled["images"][unused] = np.random.default_rng(0).integers(0, 256, batch["images"][unused].shape)
  filled["image_start"] = np.where(unused, 5, batch["image_start"])
  _, terms = loss_fn(_params(), batch, _keys(), jnp.int32(0), _total(batch))
  _, filled_terms = loss_fn(_params(), filled, _keys(), jnp.int32(0), _total(filled))
  assert terms == filled_terms


def test_only_images_that_are_targets_are_painted_and_all_of_them_count_alike():
  _, loss_fn = _noisy()
  targets = _batch()["image_is_target"] & _batch()["image_mask"]
  some = targets & (np.random.default_rng(0).random(targets.shape) < 0.5)

  def summed(chosen):
    """Number of chosen images, times their mean error; and the other terms."""
    batch = dict(_batch(), image_is_target=chosen)
    _, terms = loss_fn(_params(), batch, _keys(), jnp.int32(1), _total(batch))
    return chosen.sum() * float(terms.pop("diffusion")), terms

  (every, terms), (chosen, other_terms) = summed(targets), summed(some)
  assert 0 < some.sum() < targets.sum() and 0 < chosen < every
  assert chosen + summed(targets & ~some)[0] == pytest.approx(every, rel=1e-5)
  assert terms == other_terms
  assert summed(np.zeros_like(targets))[0] == 0  # and not a division by zero


@pytest.mark.parametrize("number", range(len(LAYOUTS)))
def test_each_chunk_layout_paints_as_if_it_were_the_only_one(number):
  s, loss_fn = _noisy()
  rows, offset, columns = LAYOUTS[number]
  chunk = dict(chunk_rows=(rows,), chunk_offsets=(offset,), chunk_columns=(columns,))
  decoder = dataclasses.replace(s.decoder, **chunk)
  stage = _stage(s, sampled_codes=0.5, diffusion=1.0)
  alone = jax.jit(_loss_fn(dataclasses.replace(s, decoder=decoder), stage))
  args = (_params(), _batch(), _keys())
  expected = float(alone(*args, jnp.int32(0), _total(_batch()))[1]["diffusion"])
  found = [float(loss_fn(*args, jnp.int32(n), _total(_batch()))[1]["diffusion"]) for n in range(len(LAYOUTS))]
  assert [value == pytest.approx(expected, rel=1e-5) for value in found] == [n == number for n in range(len(LAYOUTS))]


def _accumulated(microbatches: int):
  """((loss, terms), gradient of the decoder's last layer) of a batch in microbatches; every term is in the loss."""
  s = _settings()
  loss_fn = _loss_fn(s, _stage(s, sampled_codes=0.5, **EVERYTHING))

  @jax.jit
  def run(params, batch, keys):
    def of_last(last, rest, rows, shared):
      return loss_fn({**rest, "decoder": {**rest["decoder"], **last}}, *rows, *shared)

    total, last = _total(batch), {name: params["decoder"][name] for name in ("pixels", "final_modulation")}
    return accumulated(jax.value_and_grad(of_last, has_aux=True), microbatches)(
      last, params, (batch, keys), (jnp.int32(0), total)
    )

  weights = np.random.default_rng(0).uniform(0, 3, (ROWS, 1)).astype(np.float32)  # microbatches weigh differently
  return run(_params(), dict(_batch(), loss_weights=_batch()["loss_weights"] * weights), _keys())


def test_microbatches_add_up_to_the_whole_batch():
  (loss, terms), gradients = _accumulated(1)
  (added_loss, added_terms), added = _accumulated(4)
  assert set(terms) == set(added_terms) == {"text", "image", "diffusion", "pixel"}
  np.testing.assert_allclose(added_loss, loss, rtol=1e-5)
  for name in terms:
    np.testing.assert_allclose(added_terms[name], terms[name], rtol=1e-5, err_msg=name)
  for (path, one), other in zip(jax.tree.leaves_with_path(gradients), jax.tree.leaves(added)):
    np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-4 * np.abs(one).max(), err_msg=str(path))


class Recorder:
  """A decoder that remembers what it is asked, and predicts nothing but gray."""

  def apply(self, variables, *args, method=None, gap=None):
    if method == "remember":
      self.keep_tokens, self.keep_text = args[3:5]
      return None
    self.patches, self.spans, self.t, _, self.mask, _ = args
    return jnp.zeros_like(self.patches), None


@functools.cache
def _asked():
  """What a decoder is asked in training, of 2 × 400 images in chunks of a patch row; the images; and the error."""
  drops = {"decoder.drop_tokens": 0.3, "decoder.drop_text": 0.6}
  s = _settings(**drops, **{"decoder.time_mean": -0.5, "decoder.time_std": 0.8, "decoder.context_rows": 2})
  model, rows = small.omni(s), 400
  layout = model.layout(2, 2, 1)
  images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (rows, 2, 16, 16, 3)), jnp.float32)

  @jax.jit
  def ask(images, keys):
    decoder = Recorder()
    object.__setattr__(model, "decoder", decoder)
    nothing = jnp.zeros((rows, 2, 2, 2, 2)), (jnp.zeros((rows, 2, 1, 4)), jnp.ones((rows, 2, 1), bool))
    (error,) = paint_errors(model, {"decoder": {}}, images, nothing[0], nothing[1], keys, layout)
    assert decoder.spans == ((0, 3), (0, 4)) and decoder.mask.pattern == DoubledChunks(layout, context_rows=2)
    return error, {name: getattr(decoder, name) for name in ("patches", "t", "keep_tokens", "keep_text")}

  error, asked = ask(images, jax.random.split(jax.random.key(0), rows))
  clean = patchify(images, s.decoder.patch_size).reshape(2 * rows, 4, 4, -1)  # image, patch row, column, pixels
  split = {"finished": asked["patches"][:, :12], "noisy": asked["patches"][:, 12:]}
  split = {name: np.asarray(value).reshape(2 * rows, -1, *clean.shape[2:]) for name, value in split.items()}
  times = np.asarray(asked["t"])
  return {**asked, **split, "t_finished": times[:, :3], "t": times[:, 3:]}, np.asarray(clean), np.asarray(error).ravel()


def _is_standard_normal(x):
  assert abs(x.mean()) < 5 / np.sqrt(x.size) and abs(x.std() - 1) < 5 / np.sqrt(x.size)


def test_every_chunk_has_a_time_of_its_own_and_the_noise_that_it_says():
  asked, clean, error = _asked()
  t = asked["t"]  # a chunk is one patch row
  logits = np.log(t / (1 - t))
  _is_standard_normal((logits + 0.5) / 0.8)
  assert np.all(np.abs(np.corrcoef(logits.T) - np.eye(4)) < 0.15)
  t = t[..., None, None]
  _is_standard_normal((asked["noisy"] - t * clean) / (1 - t))
  expected = np.square(clean / np.maximum(1 - t, 0.05)).mean((1, 2, 3))
  np.testing.assert_allclose(error, expected, rtol=1e-4)


def test_the_finished_copy_carries_light_noise_says_how_much_and_shares_none_with_the_noisy_one():
  asked, clean, _ = _asked()
  sigma = 1 - asked["t_finished"]
  assert sigma.min() >= 0 and 0.195 < sigma.max() <= 0.2 and abs(sigma.mean() - 0.1) < 0.01
  assert np.all(sigma == sigma[:, :1])  # one for the whole image
  sigma, t = sigma[:, :1, None, None], asked["t"][..., None, None]
  above = sigma[:, 0, 0, 0] > 0.02  # so that the noise is not lost in rounding
  noise = (asked["finished"] - (1 - sigma) * clean[:, :3])[above] / sigma[above]
  _is_standard_normal(noise)
  of_noisy = ((asked["noisy"] - t * clean) / (1 - t))[above, :3]
  assert abs(np.corrcoef(noise.ravel(), of_noisy.ravel())[0, 1]) < 0.02


def test_tokens_and_text_are_dropped_independently_in_the_shares_that_the_settings_say():
  asked, _, _ = _asked()
  tokens, text = np.asarray(asked["keep_tokens"]), np.asarray(asked["keep_text"])
  assert abs(tokens.mean() - 0.7) < 0.06 and abs(text.mean() - 0.4) < 0.06
  assert abs((tokens & text).mean() - 0.28) < 0.06


READ = (r"tokenizer/encoder/.*", r"prior/(embed|layers|norm)/.*")  # codes are made and read


@pytest.mark.parametrize(
  "weights, sampled_codes, used",
  [
    (dict(pixel=1.0), 0.0, ("tokenizer/.*",)),
    (dict(text=1.0), 0.0, (*READ, "prior/head/text")),
    (dict(image=1.0), 0.0, (*READ, "prior/head/image")),
    (dict(diffusion=1.0), 0.0, (*READ, "decoder/.*")),
    (dict(diffusion=1.0), 0.5, (*READ, "prior/head/image", "decoder/.*")),
  ],
)
def test_a_term_of_weight_zero_is_not_in_the_compiled_program(weights, sampled_codes, used):
  """The compiled program takes the parameters of the terms that have a weight, and not one of the others."""
  s = _settings()
  loss_fn = jax.jit(_loss_fn(s, _stage(s, sampled_codes, **weights)))
  compiled = loss_fn.lower(_params(), _batch(), _keys(), jnp.int32(0), _total(_batch())).compile().as_text()
  named = re.findall(r'parameter\(\d+\).*?op_name="params((?:\[[^\]]+\])+)"', compiled)
  assert {"/".join(re.findall(r"\w+", name)) for name in named} == _paths(*used)


@functools.cache
def _gradients(sampled_codes: float, **weights):
  """Compiled gradients of all three parts, whichever move."""
  s = _settings(**{"decoder.drop_tokens": 0.3, "decoder.drop_text": 0.3})
  gradients = jax.jit(jax.grad(_loss_fn(s, _stage(s, sampled_codes, **weights)), has_aux=True))
  return lambda batch: gradients(_params(), batch, _keys(), jnp.int32(0), _total(batch))[0]


def _reached(gradients) -> set[str]:
  """Paths of the parameters whose gradient is not exactly zero."""
  leaves = jax.tree.leaves_with_path(gradients)
  return {"/".join(key.key for key in path) for path, leaf in leaves if np.any(leaf)}


def _paths(*patterns: str) -> set[str]:
  every = ["/".join(key.key for key in path) for path, _ in jax.tree.leaves_with_path(_params())]
  return {name for name in every if any(re.fullmatch(pattern, name) for pattern in patterns)}


def _without_text(batch):
  """The captions replaced by a special token: nothing is left of which a painter reads states."""
  v = small.omni(_settings()).vocabulary
  return dict(batch, tokens=np.where(batch["tokens"] < v.text_size, v.eos, batch["tokens"]))


READ_BEFORE_IMAGES = (r"prior/embed/text", r"prior/layers/.*", r"prior/norm/.*")


def test_the_painters_gradient_reaches_the_prior_through_text_states_and_the_encoder_straight_through_the_codes():
  gradients = _gradients(0.0, diffusion=1.0)
  assert _reached(gradients(_batch())) == _paths("decoder/.*", "tokenizer/encoder/.*", *READ_BEFORE_IMAGES)
  # Without text states nothing of the prior is reached; the encoder still is.
  without_text = _reached(gradients(_without_text(_batch())))
  assert without_text & _paths("prior/.*", "tokenizer/.*") == _paths("tokenizer/encoder/.*")


def test_codes_drawn_from_the_priors_logits_carry_the_painters_gradient_to_the_image_head_in_place_of_the_encoder():
  gradients = _gradients(1.0, diffusion=1.0)
  reached = _reached(gradients(_batch()))
  assert reached == _paths("decoder/.*", "prior/embed/image", "prior/head/image", *READ_BEFORE_IMAGES)
  # This path does not need the text states.
  assert _reached(gradients(_without_text(_batch()))) >= _paths("prior/(embed|head)/image", *READ_BEFORE_IMAGES)


def test_codes_are_targets_that_the_priors_cross_entropy_does_not_move():
  reached = _reached(_gradients(0.0, image=1.0)(_batch()))
  assert reached == _paths("prior/(embed|head)/image", *READ_BEFORE_IMAGES)


def test_reconstruction_teaches_both_halves_of_the_tokenizer_and_nothing_else():
  assert _reached(_gradients(0.0, pixel=1.0)(_batch())) == _paths("tokenizer/.*")
