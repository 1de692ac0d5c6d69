"""FLOPs of the model, against counts by hand and against the products in the traced loss."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest

from omniimage.models.chunks import ChunkLayout, DoubledChunks
from omniimage.size import Size
from omniimage.systems.omni_flops import chunk_flops, decoder_flops, seen_pairs, step_flops, token_flops
from tests import small

TEXT = small.text_tokenizer().size
TEXT_ALONE = {
  "data.sequence_length": 2048,
  "data.images_per_row": 0,
  "prior.width": 2048,
  "prior.depth": 20,
  "prior.heads": 16,
  "prior.kv_heads": 16,
  "prior.head_width": 128,
  "prior.mlp_width": 5632,
  "prior.text_rows": 65536,
  "stages.prior.weights.text": 1.0,
  "stages.prior.weights.image": 0.0,
}


def test_a_prior_of_a_billion_on_text_alone_needs_122_tflop_for_eight_rows():
  s = small.settings(**TEXT_ALONE)
  parameters = 20 * (4 * 2048**2 + 3 * 2048 * 5632) + 2048 * 65536  # embeddings multiply nothing
  attention = 6 * 8 * 20 * 2048**2 * 2048  # causal: half of the pairs
  assert step_flops(s, s.stages["prior"], TEXT, s.buckets[0]) == 6 * parameters * 8 * 2048 + attention
  assert step_flops(s, s.stages["prior"], TEXT, s.buckets[0]) == pytest.approx(122.46e12, rel=1e-4)


def test_grouped_keys_cost_their_own_heads_alone():
  whole, grouped = (
    small.settings(**TEXT_ALONE | {"prior.kv_heads": heads, "stages.prior.rows": 1}) for heads in (16, 4)
  )
  saved = 20 * 2 * 2048 * (16 - 4) * 128  # of keys and values
  dear, cheap = (step_flops(s, s.stages["prior"], TEXT, s.buckets[0]) for s in (whole, grouped))
  assert dear - cheap == 6 * saved * 2048


def products(jaxpr) -> int:
  """FLOPs of all matrix products of a traced function; of branches, the dearest."""
  total = 0
  for equation in jaxpr.eqns:
    if equation.primitive.name == "dot_general":
      (contracted, _), _ = equation.params["dimension_numbers"]
      left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
      total += 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)
    inside = [value for entry in equation.params.values() for value in (entry if type(entry) is tuple else (entry,))]
    inner = [products(getattr(x, "jaxpr", x)) for x in inside if hasattr(x, "jaxpr") or hasattr(x, "eqns")]
    times = equation.params["length"] if equation.primitive.name == "scan" else 1
    total += times * (max(inner) if equation.primitive.name == "cond" else sum(inner)) if inner else 0
  return total


@pytest.mark.parametrize(
  "chunk_rows, size, read",
  [
    (0, Size(2, 2, 8), "codes"),
    (2, Size(2, 2, 8), "features"),
    (2, Size(2, 3, 8), "both"),
  ],
)
def test_a_joint_step_needs_three_times_the_products_of_the_traced_loss(chunk_rows, size, read):
  changes = {"decoder.chunk_rows": (chunk_rows,), "prior.input_images": read, "stages.joint.sampled_codes": 0.0}
  s = small.settings(**changes)
  system, stage, batch = small.system(s), s.stages["joint"], small.noise(s, size)

  def loss(params):
    keys = jax.random.split(jax.random.key(0), stage.rows)
    return system.losses(stage, params, batch, keys, jnp.int32(0), system.totals(batch))

  traced = products(jax.make_jaxpr(loss)(jax.eval_shape(system.init, jax.random.key(0))).jaxpr)
  # The plain attention that is traced computes the pairs that masks hide, and x̂ of the finished copy.
  images, d = stage.rows * s.data.images_per_row, s.decoder
  layout = system.omni.layout(size.rows, size.columns, chunk_rows)
  half = 2 * s.prior.depth * s.data.sequence_length**2 * s.prior.heads * s.prior.head_width
  hidden = (layout.finished + layout.rows * layout.columns) ** 2 - seen_pairs(layout, d)
  finished = 2 * layout.finished * d.width * 3 * d.patch_size**2
  expected = traced - stage.rows * half - images * (4 * d.depth * d.width * hidden + finished)
  assert step_flops(s, stage, TEXT, size) == 3 * expected


def test_a_learnt_codebook_is_searched_for_every_place():
  s, images = small.learnt("vq", codes=32), small.learnt("vq").stages["tokenizer"].rows * 2
  more = small.learnt("vq", codes=48)
  dear, cheap = (step_flops(own, own.stages["tokenizer"], TEXT, own.buckets[0]) for own in (more, s))
  assert dear - cheap == 3 * images * 2 * 4 * 4 * (48 - 32)  # of 2 × 2 places, by 4 channels


def test_pairs_are_those_of_the_mask():
  for chunk, context_rows in (
    ((0,), 0), ((2,), 0), ((2, 1), 0), ((2,), 2), ((3,), 1), ((2, 0, 2), 0), ((2, 1, 2), 0), ((3, 0, 2), 2)
  ):  # fmt: skip
    layout, d = ChunkLayout(6, 5, *chunk), small.settings(**{"decoder.context_rows": context_rows}).decoder
    length = layout.finished + 30
    mask = DoubledChunks(layout, context_rows).dense(length, length)
    assert seen_pairs(layout, d) == (length**2 if mask is None else mask.sum())


def test_a_chunk_is_painted_in_so_many_passes_over_its_patches():
  s = small.settings(**{"sampling.diffusion_steps": 4})
  model, d = small.omni(s), s.decoder
  layout, size = model.layout(2, 2, 2), s.buckets[0]
  patches, seen = 8, 16 + 4 + 24 + 1  # of the chunk; the canvas, visual tokens, text and null
  layer = 4 * 32 * 32 + 2 * 32 * 32 + 3 * 32 * 64
  one = 2 * patches * (2 * 48 * 32 + d.depth * layer) + 4 * d.depth * 32 * patches * seen
  assert chunk_flops(s, layout, size) == 5 * one
  sampling = dataclasses.replace(s.sampling, solver="heun")
  assert chunk_flops(dataclasses.replace(s, sampling=sampling), layout, size) == 9 * one


def test_parts_that_do_not_move_cost_a_forward_pass_and_a_frozen_decoder_passes_its_gradient_on():
  s = small.settings()
  stage = dataclasses.replace(s.stages["joint"], sampled_codes=0.0)
  stage = dataclasses.replace(stage, weights={"diffusion": 1.0})
  moved = (("decoder",), ("prior", "decoder"), ("tokenizer",))
  decoder_moves, both_move, tokenizer_moves = (
    step_flops(s, dataclasses.replace(stage, rates=dict.fromkeys(parts, 1e-3)), TEXT, s.buckets[0]) for parts in moved
  )
  images, layouts = stage.rows * s.data.images_per_row, s.decoder.layouts
  layout = ChunkLayout(4, 4, *layouts[0])
  painting = images * decoder_flops(s, layout, s.buckets[0])
  encoder = images * encoder_by_hand(s)
  prior = (both_move - decoder_moves) / 2
  assert decoder_moves == 3 * painting + encoder + prior
  assert tokenizer_moves == 2 * painting + 3 * encoder + prior


def encoder_by_hand(s) -> int:
  """16 × 16 pixels: 2 × 2 places of 8 × 8 pixels, one layer of width 32."""
  t = s.tokenizer
  assert (t.patch_size, t.width, t.encoder_depth, t.mlp_width, t.levels) == (8, 32, 1, 64, (8, 8))
  ends = 4 * 2 * 32 * (3 * 64 + 2)
  layer = 4 * 2 * (4 * 32 * 32 + 3 * 32 * 64)
  return ends + layer + 4 * 32 * 4**2


def test_a_token_reads_the_whole_cache():
  s = small.settings(**TEXT_ALONE)
  layers = 2 * 20 * (4 * 2048**2 + 3 * 2048 * 5632)
  assert token_flops(s, TEXT, 2048) == layers + 4 * 20 * 2048 * 2048
  assert token_flops(s, TEXT, 2048, ("text",)) - token_flops(s, TEXT, 2048) == 2 * 2048 * 65536
