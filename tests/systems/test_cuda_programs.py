"""What trains and what draws is lowered for an NVIDIA GPU, where there is none, and attends by cuDNN's kernel."""

import functools

import jax
import jax.numpy as jnp
import pytest

from omniimage.distributed.attention import sharded_cudnn
from omniimage.distributed.fsdp import HandGathered, scatter_at_once
from omniimage.distributed.mesh import make_mesh
from omniimage.models.cudnn import cudnn_attention
from omniimage.models.kernels import Kernels
from omniimage.sampling.generate import draw_prompts
from omniimage.settings import MeshSettings
from omniimage.systems.omni import OmniSystem
from omniimage.systems.system import rules_of
from omniimage.training.sharded import (
  abstract_batch,
  abstract_sampler,
  abstract_state,
  jitted_step,
  painter_of,
  sampler_of,
)
from tests import for_cuda, small
from tests.for_cuda import cudnn  # noqa: F401  # a fixture

STAGES = ("tokenizer", "prior", "decoder", "joint")
ONE = MeshSettings(1, 1, 1, 1)
FORWARD, BACKWARD = (for_cuda.FORWARD, for_cuda.MASKED), (for_cuda.BACKWARD, for_cuda.MASKED_BACKWARD)


def step(stage: str, shape: MeshSettings = ONE, by_hand: bool = False, **changes):
  """The exported training step of a stage, on a mesh."""
  s = small.settings(**{**small.SHALLOW, "compute_dtype": "bfloat16", **changes})
  mesh = make_mesh(shape, jax.devices()[: shape.data * shape.fsdp * shape.tensor * shape.sequence])
  gather = HandGathered(mesh, rules_of(OmniSystem), s.compute_dtype, scatter_at_once) if by_hand else None
  attention = cudnn_attention if by_hand else sharded_cudnn(mesh)  # as `attention_for` has it
  system = small.system(s, kernels=Kernels(attention), gather_params=gather)
  state = abstract_state(system, stage, mesh)
  with jax.set_mesh(mesh):
    batch = abstract_batch(system, stage, 8, mesh)
    return for_cuda.exported(jitted_step(system, stage, 0, mesh, state), state, batch)


def counted(program) -> tuple[int, int]:
  """Calls of the kernel, forward and backward."""
  found = for_cuda.kernels(program)
  return tuple(sum(found[name] for name in names) for names in (FORWARD, BACKWARD))


@pytest.mark.parametrize("stage", STAGES)
def test_the_step_of_every_stage_is_a_program_for_cuda(cudnn, stage):  # noqa: F811
  program = step(stage)
  forward, backward = counted(program)
  assert program.platforms == ("cuda",) and forward >= backward > 0


def test_a_policy_that_saves_attention_does_not_run_the_kernel_again(cudnn):  # noqa: F811
  kept, again = (step("tokenizer", remat=remat) for remat in ("attention", "full"))
  assert counted(kept)[0] == counted(kept)[1]
  assert counted(again)[0] == 2 * counted(again)[1]


@pytest.mark.parametrize("shape, by_hand", [((1, 2, 2, 2), False), ((2, 4, 1, 1), True)], ids=["compiler", "hand"])
def test_the_step_of_a_mesh_divides_the_kernel(cudnn, shape, by_hand):  # noqa: F811
  program = step("joint", MeshSettings(*shape), by_hand)
  forward, backward = counted(program)
  assert program.nr_devices == 8 and forward >= backward > 0


def test_on_a_card_without_bfloat16_there_is_none(cudnn):  # noqa: F811
  program = step("joint", compute_dtype="float32")
  assert counted(program) == (0, 0) and "bf16" not in program.mlir_module()


def test_writing_and_painting_are_programs_for_cuda():
  s, mesh = small.settings(**small.SHALLOW, compute_dtype="bfloat16"), make_mesh(ONE, jax.devices()[:1])
  with jax.set_mesh(mesh):
    text_size = small.text_tokenizer().size
    for sampler in (sampler_of(s, text_size, mesh, 2, 64), painter_of(s, text_size, mesh, 2)):
      step, arguments = abstract_sampler(sampler, mesh)
      assert for_cuda.exported(step, *arguments).platforms == ("cuda",)


def test_drawing_from_prompts_to_pixels_is_a_program_for_cuda():
  s = small.settings(**small.SHALLOW)
  omni = small.omni(s, scan=False)
  params = jax.eval_shape(lambda key: omni.view(omni.init(key)), jax.random.key(0))
  tokens, lengths = jax.ShapeDtypeStruct((2, 16), jnp.int32), jax.ShapeDtypeStruct((2,), jnp.int32)
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
  draw = jax.jit(functools.partial(draw_prompts, omni, sampling=s.sampling))
  drawing = for_cuda.exported(draw, params, tokens, lengths, tokens, lengths, keys)
  assert drawing.platforms == ("cuda",) and any(x.shape == (2, 16, 16, 3) for x in drawing.out_avals)
