"""A stage that needs no pixels learns from stored codes what it learns from the images."""

import functools

import jax
import numpy as np
import pytest

from omniimage.distributed.mesh import make_mesh
from omniimage.settings import MeshSettings
from omniimage.systems import open_system
from omniimage.training.optimizer import make_optimizer
from omniimage.training.sharded import abstract_batch, abstract_state, system_for
from omniimage.training.state import enter_stage, fresh_state
from omniimage.training.step import make_train_step
from tests import small

CODES = {"data.codes": "/codes", **small.SHALLOW}


@functools.cache
def settings(**changes):
  return small.settings(**CODES, **changes)


def coded(system, params, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The batch as it would be read from stored codes."""
  codes = np.asarray(jax.jit(system.encode)(params, batch["images"]))
  codes = codes * batch["image_mask"][..., None, None]
  return {"codes": codes, **{name: value for name, value in batch.items() if name != "images"}}


def after_a_step(system, params, batch):
  stage = system.settings.stages["prior"]
  state = enter_stage(fresh_state(params), stage.moves, make_optimizer(system.settings.optimizer, stage))
  return jax.jit(make_train_step(system, stage, 0))(state, batch)


def test_a_prior_step_on_codes_is_that_on_images():
  """Up to a rounding: with the encoder in the program, the rest of it may be fused in other ways."""
  system = small.system(settings(**{"data.images_per_row": 4}))
  params, batch = small.params(system), small.batch(system.settings)
  assert not batch["image_mask"].all(), "a slot is empty, where the codes of a black image stand and weigh nothing"
  of_images, of_codes = (after_a_step(system, params, b) for b in (batch, coded(system, params, batch)))
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), of_codes, of_images)


def test_only_stages_without_pixels_read_codes_and_only_where_there_are_some():
  system = open_system(settings(), small.text_tokenizer().size)
  reads = {name: system.reads_codes(stage) for name, stage in system.settings.stages.items()}
  assert reads == {"tokenizer": False, "prior": True, "decoder": False, "joint": False}
  without = small.system(small.settings(**small.SHALLOW))
  assert not any(map(without.reads_codes, without.settings.stages.values()))


@pytest.mark.parametrize("stage", ["tokenizer", "prior"])
def test_a_plan_is_of_the_batch_that_the_stage_reads(stage):
  system, mesh = small.system(settings()), make_mesh(MeshSettings(-1, 1, 1, 1))
  planned = abstract_batch(system, stage, 8, mesh)
  assert ("codes" in planned, "images" in planned) == ((True, False) if stage == "prior" else (False, True))
  if stage == "prior":
    assert planned["codes"].shape == (8, system.settings.data.images_per_row, 2, 2)


def test_a_stage_on_codes_does_without_the_encoder():
  images, codes = small.system(small.settings(**small.SHALLOW)), small.system(settings())
  size = codes.settings.buckets[0]
  for name, stage in codes.settings.stages.items():
    saved = images.step_flops(stage, size) - codes.step_flops(stage, size)
    assert (saved > 0) == (name == "prior")


@pytest.mark.parametrize("gather", ["compiler", "hand"])
def test_a_step_on_codes_is_traced_however_parameters_are_gathered(gather):
  s = settings(**{"gather_params": gather, "scan_layers": True, "mesh.data": 2, "mesh.fsdp": 4})
  mesh = make_mesh(s.mesh)
  system = system_for(s, small.text_tokenizer().size, mesh)
  state, batch = abstract_state(system, "prior", mesh), abstract_batch(system, "prior", 8, mesh)
  with jax.set_mesh(mesh):
    after, metrics = jax.eval_shape(make_train_step(system, s.stages["prior"], 0), state, batch)
  assert "images" not in batch and {"image", "grad_norm/prior"} <= set(metrics)
  assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, state)
