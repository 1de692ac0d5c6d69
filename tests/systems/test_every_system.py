"""Every system of configs/systems.py is trained, resumed, divided over devices, looked at and graded as any other."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import systems
from omniimage.distributed.mesh import batch_sharding, global_batch, make_mesh
from omniimage.distributed.sharding import state_shardings
from omniimage.errors import UserError
from omniimage.evaluation.evaluate import evaluate
from omniimage.evaluation.suites import suite
from omniimage.settings import MeshSettings, SettingsError, from_config
from omniimage.systems import SYSTEMS, load_run
from omniimage.systems.system import rules_of
from omniimage.training.loop import train
from omniimage.training.optimizer import make_optimizer
from omniimage.training.sharded import jitted_step, system_for
from omniimage.training.state import enter_stage, fresh_state
from omniimage.training.step import make_train_step
from omniimage.workdir import Run
from tests import small
from tests.systems import compared

MESHES = {"compiler": MeshSettings(1, 2, 2, 2), "hand": MeshSettings(2, 4, 1, 1)}
KINDS = {  # of pictures that are graded, beside the painted ones; ours are tested everywhere else
  "dalle1": {"true_tokens"},
  "stable_diffusion": {"true_tokens"},
  "pixel_diffusion": set(),
  "unclip": set(),
}


def test_every_system_is_compared():
  assert set(compared.NAMES) == set(SYSTEMS)
  with pytest.raises(ValueError, match=r"omni, dalle1, .*, each also with _tiny, not 'dalle2'"):
    systems.get_config("dalle2")


def test_all_have_as_many_parameters_and_training_flops_within_three_percent():
  parameters, flops = {}, {}
  for name in compared.NAMES:
    system = compared.system(from_config(systems.get_config(name)))
    s, shapes = system.settings, jax.eval_shape(system.init, jax.random.key(0))
    assert set(shapes) == set(system.parts)
    parameters[name] = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    flops[name] = sum(s.stages[stage].steps * system.step_flops(s.stages[stage], s.buckets[0]) for stage in s.schedule)
  for counted in (parameters, flops):
    assert max(counted.values()) <= 1.03 * min(counted.values()), counted


def test_all_learn_from_the_same_records():
  data = [from_config(systems.get_config(name)).data for name in compared.NAMES]
  assert len({dataclasses.replace(own, drop_text=0.0) for own in data}) == 1


@pytest.mark.parametrize("name", KINDS)
def test_a_run_is_trained_resumed_drawn_with_and_graded(name, tmp_path):
  config = compared.config(name)
  config.run.checkpoint_every, config.run.keep_checkpoints = 3, 99
  first = train(config, str(tmp_path))
  last = int(first.step)
  assert (tmp_path / "samples" / "final.png").exists()
  again = train(config, str(tmp_path), from_step=last - 1 - (last - 1) % 3)
  jax.tree.map(np.testing.assert_array_equal, again.params, first.params)
  figures = evaluate(load_run(tmp_path), tmp_path, "binding", tmp_path / "report", prompts=3, seed=0, batch=2)
  assert figures["binding"]["prompts"] == 3 and 0 <= figures["binding"]["objects"] <= 1
  assert figures["binding"].keys() & suite.KINDS.keys() == KINDS[name]
  assert json.loads((tmp_path / "report" / "report.json").read_text())["binding"] == figures["binding"]


@pytest.mark.parametrize(
  ("name", "refused"),
  [
    ("dalle1", "seams"),
    ("stable_diffusion", "reconstruction"),
    ("pixel_diffusion", "reconstruction"),
    ("unclip", "reconstruction"),
  ],
)
def test_a_suite_that_a_system_cannot_answer_is_refused_in_one_line(name, refused, tmp_path):
  run = Run(compared.settings(name), {}, small.text_tokenizer(), 0)
  with pytest.raises(UserError, match=rf"^{refused} needs a system that .*, as {name} does not; evaluate --suite="):
    evaluate(run, tmp_path, refused, tmp_path, prompts=2, seed=0)


@pytest.mark.parametrize("name", [name for name in KINDS if name != "dalle1"])  # whose step is ours with less
def test_steps_on_eight_devices_are_those_of_one(name):
  """Of the last stage; the second loss tells of the first gradients."""
  stage_name = compared.settings(name).schedule[-1]
  s = compared.settings(name, scan_layers=True, schedule=(stage_name,))
  stage, batches, plain = s.stages[stage_name], [compared.batch(s, index) for index in range(2)], compared.system(s)

  def fresh():
    state = fresh_state(jax.tree.map(jnp.array, small.params(plain)))
    return enter_stage(state, stage.moves, make_optimizer(s.optimizer, stage))

  def logged(state, step, place):
    found = []
    for batch in batches:
      state, metrics = step(state, place(batch))
      found.append({key: float(value) for key, value in metrics.items()})
    return found

  expected = logged(fresh(), jax.jit(make_train_step(plain, stage, 0)), lambda batch: batch)
  assert expected[0]["loss"] != expected[1]["loss"]
  for gather, shape in MESHES.items():
    sharded, mesh = dataclasses.replace(s, mesh=shape, gather_params=gather), make_mesh(shape)
    divided = system_for(sharded, small.text_tokenizer().size, mesh)
    state = jax.device_put(fresh(), state_shardings(mesh, rules_of(divided), fresh()))
    with jax.set_mesh(mesh):
      step = jitted_step(divided, stage_name, 0, mesh, state)
      found = logged(state, step, lambda batch, mesh=mesh: global_batch(batch, batch_sharding(mesh)))
    for one, other in zip(expected, found):
      assert one.keys() == other.keys()
      for key in one:
        np.testing.assert_allclose(other[key], one[key], rtol=2e-5, err_msg=f"{gather} {key}")


@pytest.mark.parametrize(
  ("name", "changes", "said"),
  [
    ("dalle1", {"stages.prior.sampled_codes": 0.5}, "sampled_codes=0.5 is for painting, and nothing paints here"),
    ("dalle1", {"stages.prior.weights.diffusion": 1.0}, "config.stages.prior.weights.diffusion is not a setting"),
    ("pixel_diffusion", {"decoder.chunk_rows": (1,)}, "chunk_rows=(1,): pixel_diffusion paints the whole canvas"),
    ("pixel_diffusion", {"stages.diffusion.sampled_codes": 0.5}, "from no codes: set sampled_codes=0.5 to 0"),
    ("stable_diffusion", {"prior.local_layers": (6, 1e4, 512)}, "begins from nothing and sees the whole text"),
    ("stable_diffusion", {"tokenizer": {}}, "config.tokenizer.patch_size is missing"),
    ("stable_diffusion", {"decoder.pixels_per_token": 16}, "16 pixels for a latent, which stands for tokenizer.patch"),
    ("unclip", {"stages.embedder.accumulate": 2}, "is between all images of a batch: set accumulate=2 to 1"),
    ("unclip", {"gather_params": "hand"}, "and gather_params='hand' to 'compiler'"),
    ("stable_diffusion", {"stages.autoencoder.rates.denoiser": 1.0}, "nothing teaches the denoiser: give a weight to"),
  ],
)
def test_what_a_system_cannot_train_is_one_line_that_names_what_to_change(name, changes, said):
  with pytest.raises(SettingsError) as raised:
    compared.system(compared.settings(name, **changes))
  assert said in str(raised.value) and "\n" not in str(raised.value)


def test_latents_are_asked_for_where_a_tokenizer_is_given():
  s = compared.settings("stable_diffusion")
  with pytest.raises(SettingsError, match=r"has levels, which make codes, .* give channels and noise"):
    compared.system(dataclasses.replace(s, tokenizer=compared.settings("omni").tokenizer))
