"""The diffusions over the whole canvas: what they count, read, drop and learn; latents, pixels and embeddings alike."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.models.canvas import LatentDiffusion
from omniimage.sampling.canvas import text_tokens
from omniimage.sampling.unclip import draw_embeddings
from omniimage.streams import Stream
from omniimage.systems.canvas import image_texts
from omniimage.systems.canvas_flops import embedder_flops
from omniimage.systems.omni_flops import tokenizer_flops
from omniimage.training.optimizer import make_optimizer
from omniimage.training.state import enter_stage, fresh_state, leave_stage
from omniimage.training.step import make_train_step
from tests import small
from tests.systems import compared
from tests.systems.test_omni_flops import products

NAMES = ("stable_diffusion", "pixel_diffusion", "unclip")
AT_NOISE = {"decoder.time_mean": -30.0, "decoder.time_std": 0.0, "decoder.drop_text": 0.0}  # t = 0: nothing is seen
STEPS = {"autoencoder": (150, 5e-3), "embedder": (100, 5e-3), "diffusion": (180, 1e-2)}  # and learning rate


@functools.cache
def _settings(name: str, **changes):
  return compared.settings(name, **changes)


@functools.cache
def _system(name: str, **changes):
  return compared.system(compared.settings(name, **changes))


@functools.cache
def _batch(name: str):
  return compared.batch(compared.settings(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_step_needs_three_times_the_products_of_the_traced_loss(name):
  system = _system(name)
  s, batch = system.settings, _batch(name)
  for stage in s.stages.values():
    loss = lambda p, stage=stage: system.losses(stage, p, batch, compared.keys(), (), system.totals(batch))  # noqa: E731
    traced = products(jax.make_jaxpr(loss)(jax.eval_shape(system.init, jax.random.key(0))).jaxpr)
    frozen = 0  # the encoders of latents or embeddings that are learnt from, which run forward alone
    if stage.weight("diffusion") and "autoencoder" in system.parts:
      frozen = batch["image_mask"].size * tokenizer_flops(s, s.tokenizer.encoder_depth, s.buckets[0])
    if stage.weight("diffusion") and "embedder" in system.parts:
      frozen = batch["image_mask"].size * embedder_flops(s, s.buckets[0])
    assert system.step_flops(stage, s.buckets[0]) == 3 * traced - 2 * frozen


def test_latents_have_no_mean_and_unit_variance_at_every_place_and_their_gradient_reaches_the_encoder():
  system = _system("stable_diffusion")
  params = small.params(system)
  images = jax.random.uniform(jax.random.key(0), (4, 16, 24, 3), minval=-1)
  latents = jax.jit(system.model.encode)(system.model.view(params), images)
  assert latents.shape == (4, 2, 3, 16)
  np.testing.assert_allclose(latents.mean(-1), 0, atol=1e-5)
  np.testing.assert_allclose(latents.var(-1), 1, rtol=1e-3)
  assert float(latents.std(0).mean()) > 0.1, "they differ from image to image"


def test_the_text_of_an_image_is_that_of_its_own_conversation_before_it():
  system, batch = _system("pixel_diffusion"), _batch("pixel_diffusion")
  tokens, there = map(np.asarray, image_texts(batch, system.text_size, system.settings.decoder.text_length))
  assert tokens.shape == there.shape == (16, system.settings.decoder.text_length)
  slots = batch["image_mask"].shape[1]
  for slot, (own, exists) in enumerate(zip(tokens, there)):
    row, start = slot // slots, batch["image_start"].reshape(-1)[slot]
    if not batch["image_mask"].reshape(-1)[slot]:
      continue
    inside = batch["segments"][row] == batch["segments"][row, start]
    before = inside & (np.arange(len(inside)) < start) & (batch["tokens"][row] < system.text_size)
    np.testing.assert_array_equal(own[exists], batch["tokens"][row][before])
  assert (there.sum(1) > 5).sum() > 8


@pytest.mark.parametrize("name", NAMES)
def test_dropped_text_is_really_dropped_and_other_text_is_not(name):
  batch = _batch(name)
  said = (batch["tokens"] < small.text_tokenizer().size) & (batch["segments"] > 0)
  other = dict(batch, tokens=np.where(said, (batch["tokens"] + 7) % 200, batch["tokens"]).astype(np.int32))

  def losses(drop_text):
    system = _system(name, **{"decoder.drop_text": drop_text})
    stage, params = system.settings.stages["diffusion"], small.params(system)
    loss = jax.jit(lambda b: system.losses(stage, params, b, compared.keys(), (), system.totals(b))[0])
    return [float(loss(one)) for one in (batch, other)]

  kept, dropped = losses(0.0), losses(0.999)
  assert dropped[0] == dropped[1] and abs(kept[0] - kept[1]) > 1e-3 * kept[0]


@functools.cache
def _trained(name: str):
  """Each stage on eight images with a caption each; the state, the losses, and the settings."""
  s = _settings(
    name, **AT_NOISE, **{"data.images_per_row": 1, "data.sequence_length": 40, "data.source.max_objects": 1}
  )
  system = compared.system(s)
  batch = compared.batch(s)
  assert batch["image_mask"].all() and len({image.tobytes() for image in batch["images"]}) == 8
  state, losses = fresh_state(jax.jit(system.init)(jax.random.key(0))), {}
  for stage_name in s.schedule:
    steps, rate = STEPS[stage_name]
    row = s.stages[stage_name]
    rates = {part: rate if own else 0.0 for part, own in row.rates.items()}
    stage = dataclasses.replace(row, steps=steps, warmup_steps=10, rates=rates)
    step = jax.jit(make_train_step(system, stage, int(state.step)))
    state, logged = enter_stage(state, stage.moves, make_optimizer(s.optimizer, stage)), []
    for _ in range(steps):
      state, metrics = step(state, batch)
      logged.append(metrics)
    state, losses[stage_name] = leave_stage(state), jax.device_get(logged)
  return system, state, losses, batch


@pytest.mark.parametrize("name", NAMES)
def test_from_pure_noise_it_learns_what_only_the_text_can_tell(name):
  """Whoever does not read the text can say no better than the mean; the error of that is the variance."""
  system, state, losses, batch = _trained(name)
  rows = system.rows_class(system.model, system.model.view(state.params), batch, compared.keys())
  canvas = np.asarray(rows.canvas_FhwZ)
  uninformed = np.mean(np.square(canvas - canvas.mean(0)))
  error = np.mean([metrics["diffusion"] for metrics in losses["diffusion"][-10:]])
  assert error < uninformed / 4
  norms = losses["diffusion"][0]
  assert norms["grad_norm/text_encoder"] > 0 and norms["grad_norm/denoiser"] > 0
  if "embedding_prior" in system.parts:
    embedding = np.asarray(system.model.embed_images(rows.params, rows.images_FHW3))
    uninformed = np.mean(np.square(embedding - embedding.mean(0)))
    assert np.mean([metrics["embedding"] for metrics in losses["diffusion"][-10:]]) < uninformed / 4


def test_the_embedder_learns_which_of_eight_texts_is_whose():
  system, state, losses, batch = _trained("unclip")
  assert abs(losses["embedder"][0]["contrast"] - np.log(8)) < 1 and losses["embedder"][-1]["contrast"] < 0.3
  rows = system.rows_class(system.model, system.model.view(state.params), batch, compared.keys())
  similarities = np.asarray(system.model.similarities(rows.params, rows.images_FHW3, *rows.text_FS))
  assert (similarities.argmax(0) == np.arange(8)).all() and (similarities.argmax(1) == np.arange(8)).all()


def test_slots_without_an_image_have_no_part_in_the_contrast():
  """Whatever pixels stand there."""
  system = _system("unclip")
  stage, batch, params = system.settings.stages["embedder"], _batch("unclip"), small.params(system)
  assert not batch["image_mask"].all()
  noise = np.random.default_rng(0).integers(0, 256, batch["images"].shape, dtype=np.uint8)
  other = dict(batch, images=np.where(batch["image_mask"][..., None, None, None], batch["images"], noise))
  loss = jax.jit(lambda b: system.losses(stage, params, b, compared.keys(), (), system.totals(b))[0])
  assert float(loss(batch)) == pytest.approx(float(loss(other)), rel=1e-6) and np.isfinite(float(loss(batch)))


def test_of_two_embeddings_the_one_nearer_to_the_text_is_painted():
  system = _system("unclip")
  model, params = dataclasses.replace(system.model, scan=False), small.params(system)
  view, keys = model.view(params), jax.random.split(jax.random.key(3), 2)
  text, there = jnp.zeros((2, 3, 32)), jnp.ones((2, 3), bool)
  sampling = dataclasses.replace(system.settings.sampling, diffusion_steps=2, guidance=1.0)

  def drawn(wanted):
    return np.asarray(draw_embeddings(model, view, text, there, wanted, keys, sampling))

  towards = jax.random.normal(keys[0], (2, system.settings.tokenizer.embedding))
  one, other = drawn(0 * towards), drawn(0 * towards + 1e-6 * towards)
  products = [np.sum(np.asarray(towards) * own, axis=1) for own in (one, other)]
  assert (products[1] >= products[0] - 1e-4).all()


def test_the_autoencoder_learns_eight_images():
  _, _, losses, batch = _trained("stable_diffusion")
  images = batch["images"][:, 0] / 127.5 - 1
  assert losses["autoencoder"][-1]["pixel"] < np.mean(np.square(images - images.mean(0))) / 5


@pytest.mark.parametrize("name", NAMES)
def test_what_is_drawn_is_what_the_text_asks_for_and_guidance_changes_it(name):
  system, state, _, batch = _trained(name)
  model = dataclasses.replace(system.model, scan=False)
  tokens, there = image_texts(batch, system.text_size, system.settings.decoder.text_length)
  sampling, keys = dataclasses.replace(system.settings.sampling, diffusion_steps=1), compared.keys()

  @functools.partial(jax.jit, static_argnames="sampling")
  def draw(params, text, sampling):
    drawn = functools.partial(
      system.drawer_class.draw_canvas, model, model.view(params), size=system.settings.buckets[0]
    )
    return drawn(*text, keys, sampling=sampling).images

  at = lambda guidance: dataclasses.replace(sampling, text_guidance=guidance)  # noqa: E731
  own, others = (tokens, there), (jnp.roll(tokens, 1, axis=0), jnp.roll(there, 1, axis=0))
  true = batch["images"][:, 0] / 127.5 - 1
  asked, shifted = draw(state.params, own, at(1.0)), draw(state.params, others, at(1.0))
  errors = [np.mean(np.square(np.asarray(images) - true)) for images in (asked, shifted)]
  assert errors[0] < np.mean(np.square(true - true.mean(0))) / 2 and errors[1] > 2 * errors[0]
  plain = draw(state.params, own, at(0.0))  # all of it without the text
  np.testing.assert_allclose(plain, draw(state.params, others, at(0.0)), atol=1e-5)
  assert np.abs(asked - draw(state.params, own, at(3.0))).max() > 0.05


def test_a_memory_that_is_kept_paints_what_one_that_is_read_in_each_step_does():
  system = _system("pixel_diffusion")
  model = dataclasses.replace(system.model, scan=False)
  keys = jax.random.split(jax.random.key(1), 2)
  text, noisy = jax.random.normal(keys[0], (3, 5, 32)), jax.random.normal(keys[1], (3, 4, model.denoiser.channels))
  there, keep = jnp.arange(5) > jnp.arange(3)[:, None], jnp.array([True, True, False])

  @functools.partial(jax.jit, static_argnames="keeps")
  def predict(params, keeps):
    params = model.view(params)
    memory = model.remember(params, text, there, keep)
    return model.predict(params, noisy, 2, jnp.full(3, 0.3), memory, model.keep(params, memory) if keeps else None)

  params = small.params(system)
  np.testing.assert_allclose(predict(params, True), predict(params, False), rtol=1e-4, atol=1e-4)


def test_prompts_stand_where_training_has_them():
  system, tokenizer = _system("pixel_diffusion"), small.text_tokenizer()
  prompts = ["a large red star", "a small blue ring in the top left", "a red star " * 9]
  tokens, there = text_tokens(prompts, system.settings, tokenizer, system.vocabulary)
  for prompt, own, exists in zip(prompts, tokens, there):
    expected = tokenizer.encode(prompt)[-system.settings.decoder.text_length :]
    assert own[exists].tolist() == expected and exists[-1] and np.all(np.diff(exists.astype(int)) >= 0)
  assert there.sum(1).max() == system.settings.decoder.text_length


def test_only_latents_are_a_plan_and_streams_of_their_noise_are_their_own():
  generators = [_system(name).generator(small.params(_system(name)), small.text_tokenizer()) for name in NAMES]
  assert [generator.plans for generator in generators] == [True, False, False]
  assert isinstance(generators[0].model, LatentDiffusion) and not isinstance(generators[1].model, LatentDiffusion)
  assert len({Stream.LATENT_NOISE, Stream.LATENT_SIGMA, Stream.NOISE, Stream.TIMES}) == 4
