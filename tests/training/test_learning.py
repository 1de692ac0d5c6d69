"""Each part learns eight images by heart, as in a run: tokenizer, prior, decoder, each on what came before."""

import dataclasses
import functools

import jax
import numpy as np

from omniimage.sampling.generate import draw_prompts
from omniimage.sampling.tokens import reconstruct
from omniimage.training.optimizer import make_optimizer
from omniimage.training.state import TrainState, enter_stage, fresh_state, leave_stage
from omniimage.training.step import make_train_step
from tests import small

STAGES = {"tokenizer": (300, 5e-3), "prior": (80, 1e-2), "decoder": (300, 1e-2)}  # steps, learning rate


@functools.cache
def _settings():
  s = small.settings(**{
    **small.SHALLOW,
    "data.images_per_row": 1,
    "data.sequence_length": 40,
    "tokenizer.width": 64,
    "tokenizer.mlp_width": 128,
    "tokenizer.levels": (8, 5, 5, 5),
    "decoder.width": 64,
    "decoder.mlp_width": 128,
    "decoder.time_mean": -1.0,  # mostly noise: what an image is comes from its tokens and text
    "sampling.diffusion_steps": 8,
    "sampling.temperature": 0.0,
  })  # fmt: skip
  decoder = dataclasses.replace(s.decoder, drop_tokens=0.0, drop_text=0.0)
  rates = {name: {"steps": steps, "rates": {name: rate}, "warmup_steps": 10} for name, (steps, rate) in STAGES.items()}
  stages = {name: dataclasses.replace(s.stages[name], **rates[name]) for name in STAGES}
  return dataclasses.replace(s, decoder=decoder, stages=stages, schedule=tuple(STAGES))


@functools.cache
def _batch():
  batch = small.batch(_settings())
  assert batch["image_mask"].all() and len({image.tobytes() for image in batch["images"]}) == 8
  return batch


def _images():
  return _batch()["images"][:, 0].astype(np.float32) / 127.5 - 1


@functools.cache
def _trained(name: str) -> tuple[TrainState, list[dict[str, float]]]:
  """The state at the end of a stage, and its metrics."""
  s = _settings()
  model, earlier = small.omni(s), s.schedule.index(name) - 1
  if earlier < 0:
    state = fresh_state(jax.jit(model.init)(jax.random.key(0)))
  else:
    state, _ = _trained(s.schedule[earlier])
  stage = s.stages[name]
  step = jax.jit(make_train_step(small.system(s), stage, int(state.step)))
  state, logged = enter_stage(state, stage.moves, make_optimizer(s.optimizer, stage)), []
  for _ in range(stage.steps):
    state, metrics = step(state, _batch())
    logged.append(metrics)
  return leave_stage(state), jax.device_get(logged)


@functools.cache
def _drawn():
  """What the trained parts draw when they are given the texts of the batch."""
  model, batch = small.omni(_settings()), _batch()
  params, lengths = model.view(_trained("decoder")[0].params), batch["image_start"][:, 0]
  prompts = batch["tokens"][:, : lengths.max()]
  keys = jax.random.split(jax.random.key(0), len(lengths))
  draw = jax.jit(functools.partial(draw_prompts, model, sampling=_settings().sampling))
  return draw(params, prompts, lengths, prompts, lengths, keys)  # without guidance nothing is compared


@functools.cache
def _codes():
  model = small.omni(_settings())
  return jax.jit(lambda params: model.encode(model.view(params), _images()).codes)(_trained("tokenizer")[0].params)


def _psnr(images, true) -> float:
  """Peak signal to noise in decibels, of values in [-1, 1]."""
  return float(10 * np.log10(4 / np.mean(np.square(np.asarray(images) - true))))


def test_the_tokenizer_learns_eight_images():
  """Its error falls to a tenth of what the mean image of the batch would leave."""
  model = small.omni(_settings())
  state, _ = _trained("tokenizer")
  render = jax.jit(lambda params: reconstruct(model, model.view(params), _images()))
  error = np.mean(np.square(render(state.params) - _images()))
  variance = np.mean(np.square(_images() - _images().mean(0)))
  assert error < variance / 10


def test_the_prior_learns_the_codes_of_eight_captions():
  _, logged = _trained("prior")
  assert logged[0]["image"] > 3 and logged[-1]["image"] < 0.05  # nats a code


def test_the_decoder_learns_eight_images():
  _, logged = _trained("decoder")
  flow = [metrics["diffusion"] for metrics in logged]
  assert np.mean(flow[-20:]) < np.mean(flow[:20]) / 15


def test_trained_parts_draw_the_images_they_have_learnt_from_the_text_alone():
  """The likeliest codes are the true ones, and the picture is sharper than one blurred over squares of two pixels."""
  drawing = _drawn()
  blurred = _images().reshape(8, 8, 2, 8, 2, 3).mean((2, 4)).repeat(2, axis=1).repeat(2, axis=2)
  np.testing.assert_array_equal(drawing.codes, _codes())
  assert _psnr(drawing.images, _images()) > _psnr(blurred, _images()) + 1
