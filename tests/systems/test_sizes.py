"""Images need not be square, nor as large in every batch: what is made of them is taken from their arrays."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.distributed.mesh import batch_sharding, global_batch, make_mesh
from omniimage.distributed.sharding import state_shardings
from omniimage.size import Size
from omniimage.systems.omni import OmniSystem
from omniimage.systems.system import rules_of
from omniimage.training.optimizer import make_optimizer
from omniimage.training.sharded import jitted_step
from omniimage.training.state import enter_stage, fresh_state
from tests import small

SQUARE, WIDE, TALL = Size(2, 2, 8), Size(2, 3, 8), Size(3, 1, 8)
ROWS = 4


def _without_attention(params):
  """What attention finds in images is thrown away: each place is read, rendered and painted by itself."""

  def close(path, leaf):
    part, *names = (key.key for key in path)
    of_attention = any(name.endswith("attention") for name in names) and "out" in names
    return jnp.zeros_like(leaf) if part != "prior" and of_attention else leaf

  return jax.tree.map_with_path(close, params)


def _cut(batch, size: Size):
  """Every visual token's pixels as an image, in raster order, in place of the images they are cut from."""
  B, I = batch["image_mask"].shape
  p = size.pixels_per_token
  pixels = batch["images"].reshape(B, I, size.rows, p, size.columns, p, 3).swapaxes(3, 4)
  slots = {name: np.repeat(batch[name], size.tokens, axis=1) for name in batch if name.startswith("image_")}
  return {**batch, **slots, "images": pixels.reshape(B, I * size.tokens, p, p, 3)}


@pytest.mark.parametrize("size", [WIDE, TALL])
def test_without_attention_a_rectangle_is_the_mean_of_its_places(size):
  """The loss of images of any shape against that of the squares they are made of."""
  s = small.settings(**small.SHALLOW, **small.WITHOUT_NOISE)
  system, batch = small.system(s), small.noise(s, size, ROWS)
  stage = dataclasses.replace(s.stages["joint"], weights={"pixel": 1.0, "diffusion": 1.0}, sampled_codes=0.0)
  params, keys = _without_attention(small.params(system)), jax.random.split(jax.random.key(0), ROWS)

  @jax.jit
  def losses(batch):
    return system.losses(stage, params, batch, keys, jnp.int32(0), system.totals(batch))[1]

  whole, places = losses(batch), losses(_cut(batch, size))
  assert set(whole) == {"pixel", "diffusion"} and batch["image_mask"].sum() > ROWS
  for name in whole:
    np.testing.assert_allclose(whole[name], places[name], rtol=1e-5, err_msg=name)


def test_a_step_is_compiled_once_for_each_size_and_learns_from_both():
  s, traced = small.settings(**small.SHALLOW, **{"optimizer.muon_rms": 0.0}), []

  class Counted(OmniSystem):
    def losses(self, stage, params, batch, *rest):
      traced.append(batch["images"].shape[2:4])
      return super().losses(stage, params, batch, *rest)

  system, stage, mesh = Counted(s, small.text_tokenizer().size), s.stages["tokenizer"], make_mesh(s.mesh)
  state = fresh_state(small.params(system))
  state = enter_stage(state, stage.moves, make_optimizer(s.optimizer, stage))
  state = jax.device_put(state, state_shardings(mesh, rules_of(system), state))
  losses = {SQUARE: [], WIDE: []}
  with jax.set_mesh(mesh):
    step = jitted_step(system, "tokenizer", 0, mesh, state)
    for size in (SQUARE, WIDE) * 2:
      state, metrics = step(state, global_batch(small.noise(s, size), batch_sharding(mesh)))
      losses[size].append(float(metrics["loss"]))
  assert traced == [SQUARE.pixels, WIDE.pixels]
  assert all(first > last for first, last in losses.values()), losses


def test_every_term_of_a_rectangle_is_finite():
  s = small.learnt("vq", **small.SHALLOW)  # which has every term; LPIPS needs its weights
  system, batch = small.system(s), small.noise(s, WIDE, ROWS)
  asked = [name for name in system.terms if "lpips" not in name]
  stage = dataclasses.replace(s.stages["joint"], weights=dict.fromkeys(asked, 1.0), sampled_codes=0.5)
  losses = jax.jit(functools.partial(system.losses, stage))
  loss, terms = losses(
    small.params(system), batch, jax.random.split(jax.random.key(0), ROWS), jnp.int32(0), system.totals(batch)
  )
  assert set(terms) == set(asked) and all(np.isfinite(value) for value in terms.values())
  assert {name for name, value in terms.items() if value <= 0} == {"entropy"} and np.isfinite(loss) and loss > 0
