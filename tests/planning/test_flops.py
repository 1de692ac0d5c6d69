"""FLOPs of products and kernels, counted on paper."""

import pytest

from omniimage.planning.flops import KERNELS, matmul_flops, splash_flops, stated_flops
from tests.planning.snippets import found


def flops(left: str, right: str, out: str, operation: str) -> float:
  _, main, x = found(f"%l = f32[{left}] parameter(0)\n%r = f32[{right}] parameter(1)\n%x = f32[{out}] {operation}", "x")
  return matmul_flops(main, x)


def test_a_product_takes_two_operations_for_each_multiplication():
  contracted = "lhs_contracting_dims={1}, rhs_contracting_dims={0}"
  assert flops("2,3", "3,5", "2,5", f"dot(%l, %r), {contracted}") == 2 * 2 * 3 * 5


def test_a_batched_product_over_two_axes_multiplies_both():
  axes = "lhs_batch_dims={0}, lhs_contracting_dims={2,3}, rhs_batch_dims={0}, rhs_contracting_dims={1,2}"
  assert flops("7,2,3,4", "7,3,4,5", "7,2,5", f"dot(%l, %r), {axes}") == 2 * 7 * 2 * 12 * 5


def test_a_product_written_as_a_convolution_counts_the_same():
  assert flops("2,3", "3,5", "2,5", "convolution(%l, %r), dim_labels=bf_io->bf") == 2 * 2 * 3 * 5
  # The sum over 8 rows of positions, as the gradient of a kernel is written.
  summed = "convolution(%l, %r), window={size=8}, dim_labels=0fb_0io->bf0"
  assert flops("8,4,2", "8,4,5", "2,5,1", summed) == 2 * 8 * 4 * 2 * 5


def test_padding_and_gaps_of_a_convolution_cost_nothing():
  # 16 heads side by side as one full convolution, padded by 15 on both sides: one tap meets data for each output.
  heads = "convolution(%l, %r), window={size=1x16 pad=0_0x15_15 rhs_reversal=0x1}, dim_labels=0bf1_i1o0->0b1f"
  assert flops("8,20,30,1", "30,16,7,1", "8,20,16,7", heads) == 2 * 8 * 20 * 30 * 16 * 7
  strided = "convolution(%l, %r), window={size=3 stride=2}, dim_labels=b0f_0io->b0f"
  assert flops("1,9,1", "3,1,1", "1,4,1", strided) == 2 * 3 * 4
  dilated = "convolution(%l, %r), window={size=3 pad=2_2 lhs_dilate=2}, dim_labels=b0f_0io->b0f"
  assert flops("1,4,1", "3,1,1", "1,9,1", dilated) == 2 * 3 * 4


def test_what_is_no_product_has_no_flops():
  _, main, x = found("%a = f32[4] parameter(0)\n%x = f32[4] add(%a, %a)", "x")
  assert matmul_flops(main, x) == 0


QUERIES, KEYS, HEAD = 4096, 2048, 128
ATTENTION = f"""
  %q = bf16[2,16,{QUERIES},{HEAD}] parameter(0)
  %k = bf16[2,16,{KEYS},{HEAD}] parameter(1)
"""
DENSE = 2 * 2 * 16 * QUERIES * KEYS * HEAD  # FLOPs of one product over all blocks


def splash(kernel: str, blocks: str, tables: str = "", operands: str = "%q, %k, %k", out: str = "bf16[1]") -> float:
  metadata = f'frontend_attributes={{kernel_metadata={{\n"xprof_metadata":"{{{blocks}}}"\n}}}}'
  call = f'%{kernel}.3 = ({out}) custom-call({operands}), custom_call_target="tpu_custom_call", {metadata}'
  read, main, x = found(f"{ATTENTION}{tables}\n{call}", f"{kernel}.3")
  return splash_flops(read, main, x)


FORWARD = r"\"block_q\": 1024, \"block_kv\": 512"
BACKWARD = r"\"block_q_dkv\": 1024, \"block_kv_dkv\": 512"


def test_forward_attention_is_two_products():
  assert splash("splash_mha_fwd_residuals", FORWARD) == 2 * DENSE


def test_the_gradient_of_keys_and_values_is_four_products_that_of_queries_three_and_all_at_once_five():
  of_keys = f"bf16[2,16,{KEYS},{HEAD}], bf16[2,16,{KEYS},{HEAD}]"
  assert splash("splash_mha_dkv_no_residuals", BACKWARD, out=of_keys) == 4 * DENSE
  of_queries = BACKWARD.replace("dkv", "dq")
  assert splash("splash_mha_dq_no_residuals", of_queries, out=f"bf16[2,16,{QUERIES},{HEAD}]") == 3 * DENSE
  parts = f"bf16[2,4,16,{QUERIES},{HEAD}], {of_keys}"  # of the queries' gradient, one for each block of keys
  assert splash("splash_mha_dkv_no_residuals", BACKWARD, out=parts) == 5 * DENSE


def test_blocks_that_a_small_mask_skips_are_not_counted():
  tables = """
    %next = s8[1,4,4] constant({ { {0,0,0,0}, {0,1,0,0}, {0,1,2,0}, {0,1,2,3} } })
    %kind = s8[1,4,4] constant({ { {1,0,0,0}, {2,1,0,0}, {2,2,1,0}, {2,2,2,1} } })
  """
  assert splash("splash_mha_fwd_residuals", FORWARD, tables, "%next, %kind, %q, %k, %k") == 2 * DENSE * 10 / 16


def test_a_mask_that_is_one_value_everywhere_hides_nothing():
  tables = """
    %two = s8[] constant(2)
    %next = s8[1,4,4] broadcast(%two), dimensions={}
    %kind = s8[1,4,4] broadcast(%two), dimensions={}
  """
  assert splash("splash_mha_fwd_residuals", FORWARD, tables, "%next, %kind, %q, %k, %k") == 2 * DENSE


def test_of_masks_left_out_a_square_grid_is_causal_and_a_narrow_one_visited_whole():
  left_out = "%next = s8[1,4,{0}] constant({{...}})\n%kind = s8[1,4,{0}] constant({{...}})"
  whole = splash("splash_mha_fwd_residuals", FORWARD, left_out.format(4), "%next, %kind, %q, %k, %k")
  assert whole == 2 * DENSE * 5 / 8  # (4 + 1) / 2 of 4 blocks a row
  narrow = splash("splash_mha_fwd_residuals", FORWARD, left_out.format(3), "%next, %kind, %q, %k, %k")
  assert narrow == 2 * DENSE * 3 / 4


def test_other_kernels_are_believed_or_unknown():
  own = '%own = f32[1] custom-call(%q), custom_call_target="tpu_custom_call"'
  read, main, x = found(f'{ATTENTION}{own}, backend_config={{"cost_estimate":{{"flops":"123"}}}}', "own")
  assert (splash_flops(read, main, x), stated_flops(read, main, x)) == (None, 123)
  read, main, x = found(f"{ATTENTION}{own}", "own")
  assert [kernel(read, main, x) for kernel in KERNELS] == [None, None]


@pytest.mark.parametrize("kernel", ["splash_mqa_fwd", "splash_mha_fwd_segmented_residuals"])
def test_all_variants_of_the_kernel_are_known(kernel):
  assert splash(kernel, FORWARD) == 2 * DENSE
