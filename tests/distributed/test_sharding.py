import dataclasses
import re

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from configs import scenes
from omniimage.distributed import sharding
from omniimage.distributed.mesh import make_mesh
from omniimage.distributed.sharding import param_specs, state_shardings
from omniimage.models.omni import Omni
from omniimage.settings import MeshSettings, SettingsError, from_config
from omniimage.systems.omni import OmniSystem
from omniimage.training.optimizer import make_optimizer

RULES = {name: part.rules for name, part in OmniSystem.parts.items()}


@flax.struct.dataclass
class State:
  step: jax.Array
  batch_index: jax.Array
  params: dict
  ema: dict
  opt_state: dict


def array(*shape: int) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def a_prior(width: int = 16, layers: int = 3) -> dict:
  attention = {"query": {"kernel": array(layers, width, 4, 8)}, "out": {"kernel": array(layers, 4, 8, width)}}
  return {
    "embed": {"text": array(64, width)},
    "layers": {"attention": attention, "attention_norm": {"scale": array(layers, width)}},
    "norm": {"scale": array(width)},
  }


def a_state(optimizer: optax.GradientTransformation, **parts: dict) -> State:
  scalar = jax.ShapeDtypeStruct((), jnp.int32)
  opt_state = {part: jax.eval_shape(optimizer.init, params) for part, params in parts.items()}
  return State(scalar, scalar, parts, dict(parts), opt_state)


@pytest.fixture
def mesh():
  return make_mesh(MeshSettings(data=2, fsdp=2, tensor=2, sequence=1))


@pytest.fixture(scope="module")
def model():
  config = scenes.get_config()
  config.prior.input_images, config.prior.grid_embedding = "both", True  # which have every parameter there is
  settings = from_config(config)
  return jax.eval_shape(Omni(settings, text_size=512).init, jax.random.key(0))


def test_every_parameter_of_the_models_has_a_rule_and_matrices_of_layers_are_sharded(model):
  for part, params in model.items():
    specs = jax.tree.leaves(param_specs(RULES[part], part, params))
    for (path, leaf), spec in zip(jax.tree.leaves_with_path(params), specs):
      name = sharding._name(path)
      assert spec == P() or len(spec) == leaf.ndim
      if "layers/" in name and name.endswith("kernel"):
        assert spec[0] is None and {"fsdp", "tensor"} <= set(spec), name


def test_every_rule_is_the_first_to_match_some_parameter(model):
  model = jax.tree.map(lambda leaf: leaf, model)
  model["prior"]["layers"]["attention"]["query"]["bias"] = array(2, 4, 8)  # of imported Qwen2.5 weights
  model["tokenizer"]["quantizer"] = {"codebook": array(1000, 4)}  # of one that is learnt
  for part, params in model.items():
    names = [sharding._name(path) for path, _ in jax.tree.leaves_with_path(params)]
    patterns = [pattern for pattern, _ in RULES[part]]
    first = {next(pattern for pattern in patterns if re.fullmatch(pattern, name)) for name in names}
    shared = {pattern for pattern, _ in sharding.LAYER_RULES}
    assert first | shared == set(patterns)
    assert first >= shared


def test_a_stack_of_layers_gets_its_leading_none_by_itself():
  specs = param_specs(RULES["prior"], "prior", a_prior())
  assert specs["layers"]["attention"]["query"]["kernel"] == P(None, "fsdp", "tensor", None)
  assert specs["layers"]["attention"]["out"]["kernel"] == P(None, "tensor", None, "fsdp")
  assert specs["layers"]["attention_norm"]["scale"] == P()
  assert specs["embed"]["text"] == P(("fsdp", "tensor"), None)


def test_optimizer_state_and_averages_lie_like_their_parameter(mesh):
  state = a_state(optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)), prior=a_prior())
  shardings = state_shardings(mesh, RULES, state)
  assert jax.tree.structure(shardings) == jax.tree.structure(state)
  adam = shardings.opt_state["prior"][1][0]
  assert adam.mu == adam.nu == shardings.params["prior"] == shardings.ema["prior"]
  assert adam.mu["layers"]["attention"]["query"]["kernel"].spec == P(None, "fsdp", "tensor", None)
  assert adam.count.spec == shardings.step.spec == shardings.batch_index.spec == P()


def test_muons_state_lies_like_its_parameters_and_its_coefficients_are_everywhere(mesh, model):
  settings = from_config(scenes.get_config())
  optimizer = make_optimizer(settings.optimizer, settings.stages["prior"])
  abstract = State(None, None, model, {}, jax.eval_shape(optimizer.init, model))
  shardings = state_shardings(mesh, RULES, abstract)
  assert jax.tree.structure(shardings.opt_state) == jax.tree.structure(abstract.opt_state)
  muon = (
    optax.tree.get(shardings.opt_state["prior"], "ns_coeffs"),
    optax.tree.get(shardings.opt_state["prior"], "mu", filtering=lambda path, _: "muon" in jax.tree_util.keystr(path)),
  )
  assert muon[0].spec == P()
  assert muon[1]["layers"]["mlp"]["down"] == shardings.params["prior"]["layers"]["mlp"]["down"]


def test_a_path_follows_the_longest_parameter_that_ends_it(mesh):
  params = {"encoder": {"codes": {"kernel": array(16, 3)}}, "decoder": {"codes": {"kernel": array(3, 16)}}}
  shardings = state_shardings(mesh, RULES, a_state(optax.adam(1e-3), tokenizer=params))
  mu = shardings.opt_state["tokenizer"][0].mu
  assert mu["encoder"]["codes"]["kernel"].spec == P("fsdp", None)
  assert mu["decoder"]["codes"]["kernel"].spec == P(None, "fsdp")


def test_a_state_placed_by_its_shardings_steps_without_moving(mesh):
  optimizer = optax.adam(1e-3)
  params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), a_prior())
  state = State(jnp.int32(0), jnp.int32(0), {"prior": params}, {}, {"prior": optimizer.init(params)})
  shardings = state_shardings(mesh, RULES, jax.eval_shape(lambda: state))

  def step(state):
    updates, opt_state = optimizer.update(state.params["prior"], state.opt_state["prior"])
    params = optax.apply_updates(state.params["prior"], updates)
    return state.replace(step=state.step + 1, params={"prior": params}, opt_state={"prior": opt_state})

  with jax.set_mesh(mesh):
    placed = jax.device_put(state, shardings)
    stepped = jax.jit(step, in_shardings=(shardings,), out_shardings=shardings, donate_argnums=0)(placed)
  assert jax.tree.map(lambda leaf: leaf.sharding, stepped) == shardings
  np.testing.assert_allclose(stepped.params["prior"]["norm"]["scale"], 1 - 1e-3, rtol=1e-5)


def test_unmatched_parameter_path_is_named_in_the_error():
  with pytest.raises(SettingsError, match=r"no sharding rule matches prior/layers/gadget/kernel \(3, 4\)"):
    param_specs(RULES["prior"], "prior", {"layers": {"gadget": {"kernel": array(3, 4)}}})


def test_a_pattern_must_match_the_whole_path():
  with pytest.raises(SettingsError, match=r"decoder/extra/text/kernel"):
    param_specs(RULES["decoder"], "decoder", {"extra": {"text": {"kernel": array(4, 4)}}})


def test_a_spec_of_another_rank_is_an_error_that_names_the_path_and_its_rule():
  with pytest.raises(SettingsError, match=r"prior/embed/text \(4, 4, 4\): the rule 'embed.* is for 2 dimensions"):
    param_specs(RULES["prior"], "prior", {"embed": {"text": array(4, 4, 4)}})
  unstacked = {"layers": {"mlp": {"up": {"kernel": array(8, 8)}}}}
  with pytest.raises(SettingsError, match=r"mlp/up/kernel \(8, 8\): .* 2 dimensions and the layers of a stack"):
    param_specs(RULES["prior"], "prior", unstacked)


def test_a_dimension_that_does_not_divide_names_path_shape_axis_and_size(mesh):
  message = r"prior/head/text \(15, 64\): dimension 0 is 15, which does not divide over mesh.fsdp=2"
  with pytest.raises(SettingsError, match=message):
    state_shardings(mesh, RULES, a_state(optax.sgd(1e-3), prior={"head": {"text": array(15, 64)}}))


def test_optimizer_state_that_follows_no_parameter_is_an_error(mesh):
  state = a_state(optax.adam(1e-3), prior=a_prior())
  stray = dataclasses.replace(state, opt_state={"prior": {"mu": {"gadget": {"scale": array(16)}}}})
  with pytest.raises(SettingsError, match=r"opt_state/prior/mu/gadget/scale \(16,\) follows no parameter"):
    state_shardings(mesh, RULES, stray)
  other_shape = dataclasses.replace(state, opt_state={"prior": {"row": {"embed": {"text": array(64)}}}})
  with pytest.raises(SettingsError, match=r"row/embed/text \(64,\) has another shape than its parameter \(64, 16\)"):
    state_shardings(mesh, RULES, other_shape)
