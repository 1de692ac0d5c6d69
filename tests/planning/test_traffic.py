"""Bytes received from others, and bytes to and from device memory."""

import pytest

from omniimage.planning.traffic import (
  across_slices,
  collective,
  copied_bytes,
  group_size,
  hbm_bytes,
  received_bytes,
  rendezvous,
)
from tests.planning.snippets import found


@pytest.mark.parametrize(
  ("kind", "received"),
  [
    ("all-gather", 300),  # the other three's 100 bytes each
    ("reduce-scatter", 75),  # a quarter from each of three
    ("all-reduce", 150),  # a reduce-scatter, then the other quarters
    ("all-to-all", 75),
    ("collective-permute", 100),
  ],
)
def test_a_group_of_four_receives_the_least_its_kind_allows(kind, received):
  assert received_bytes(kind, 100, 4) == received


def test_a_group_of_one_receives_nothing():
  assert [received_bytes(kind, 100, 1) for kind in ("all-gather", "all-reduce", "reduce-scatter")] == [0, 0, 0]


@pytest.mark.parametrize(
  ("groups", "members"),
  [
    ("{{0,1,2},{3,4,5}}", 3),
    ("[16,8]<=[128]", 8),
    ("[4,2]<=[2,2,2]T(1,0,2)", 2),
    ("[8]<=[8]", 8),
    ("mesh['data'=16,'fsdp'=4,'tensor'=1] {'fsdp'}", 4),
    ("mesh['data'=16,'fsdp'=4] {'data','fsdp'}", 64),
    ("mesh['data'=16,'fsdp'=4] {'data':(2)8}", 8),  # a part of an axis
    ("{}", 4),  # all of the module's partitions
  ],
)
def test_replica_groups_are_read_in_every_notation(groups, members):
  _, _, x = found(f"%a = f32[25] parameter(0)\n%x = f32[25] all-reduce(%a), replica_groups={groups}", "x")
  assert group_size(x, 4) == members


def received(operation: str, *others: str) -> tuple[str, float]:
  read, main, x = found(f"%a = bf16[50] parameter(0)\n%b = f32[25] parameter(1)\n%x = {operation}", "x", *others)
  return collective(main, x, read.partitions)


def test_a_collective_of_several_arrays_sends_them_all():
  assert received("(f32[100], bf16[200]) all-gather(%b, %a)") == ("all-gather", 3 * 200)


def test_an_asynchronous_start_counts_like_the_collective_it_starts():
  assert received("(f32[25], f32[100]) all-gather-start(%b)") == ("all-gather", 300)


def test_a_sum_that_widens_its_operands_sends_the_wider():
  assert received("f32[50] all-reduce(%a)") == ("all-reduce", 2 * 200 * 3 / 4)


def test_an_all_reduce_inside_an_all_reduce_scatter_is_a_reduce_scatter():
  fused = """
    %all-reduce-scatter.1 (input: f32[100]) -> f32[25] {
      %input = f32[100] parameter(0)
      %sum = f32[100] all-reduce(%input), replica_groups=[1,4]<=[4]
      ROOT %own = f32[25] dynamic-slice(%sum), dynamic_slice_sizes={25}
    }
  """
  read, _, _ = found("%a = f32[100] parameter(0)", "a", fused)
  inside = read.computations["all-reduce-scatter.1"]
  assert collective(inside, inside.named["sum"], 4) == ("reduce-scatter", 300)


SEND = """
  %a = f32[25] parameter(0)
  %token = token[] after-all()
  %x = (f32[25], u32[], token[]) send(%a, %token), is_host_transfer=true, frontend_attributes={ATTRIBUTES}
  %done = token[] send-done(%x), is_host_transfer=true
"""
BETWEEN = '_xla_host_transfer_rendezvous="sum.1",_xla_megascale_target=TARGET,_xla_megascale_transfer_type="TYPE"'


@pytest.mark.parametrize(
  ("kind", "target", "expected"),
  [
    ("ALL_REDUCE", '"{1,2}x{0:3}"', ("dcn-all-reduce", 100)),
    ("ALL_REDUCE", '"{1,2,3,4}x{0:3}"', ("dcn-all-reduce", 150)),
    ("ALL_GATHER", "{{100000,200000},{100001,200001}}", ("dcn-all-gather", 100)),
    ("ONE_TO_ONE", "{{100000,200000}}", ("dcn-collective-permute", 100)),
  ],
)
def test_a_send_between_slices_is_the_collective_that_it_begins(kind, target, expected):
  attributes = BETWEEN.replace("TYPE", kind).replace("TARGET", target)
  _, main, x = found(SEND.replace("ATTRIBUTES", attributes), "x")
  assert across_slices(main, x) == expected
  assert rendezvous(main, main.named["done"]) == "sum.1"


def test_a_send_to_the_host_is_no_collective():
  _, main, x = found(SEND.replace("ATTRIBUTES", '_xla_host_transfer_rendezvous="log"'), "x")
  assert across_slices(main, x) is None


def moved(entry: str, *others: str) -> float:
  read, main, x = found(entry, "x", *others)
  return hbm_bytes(read, main, x)


def test_an_operation_reads_its_operands_and_writes_its_results_where_they_lie_in_hbm():
  near_and_far = "%a = f32[25] parameter(0)\n%b = f32[25]{0:S(1)} parameter(1)\n"
  assert moved(near_and_far + "%x = f32[25] add(%a, %b)") == 200
  assert moved(near_and_far + "%x = f32[25]{0:S(1)} add(%b, %b)") == 0


def test_slices_move_what_they_take_and_updates_what_they_write():
  arrays = "%a = f32[1000] parameter(0)\n%b = f32[25] parameter(1)\n%i = s32[] parameter(2)\n"
  assert moved(arrays + "%x = f32[25] dynamic-slice(%a, %i), dynamic_slice_sizes={25}") == 2 * 100
  assert moved(arrays + "%x = f32[1000] dynamic-update-slice(%a, %b, %i)") == 2 * 100


FUSED = """
  %a = f32[1000] parameter(0)
  %b = f32[25] parameter(1)
  %i = s32[]{:S(6)} parameter(2)
  %x = OUT fusion(%a, %b, %i), kind=kLoop, calls=%fused
"""


def fused(out: str, body: str, *others: str) -> float:
  text = f"""
    %fused (p0: f32[1000], p1: f32[25], p2: s32[]) -> {out} {{
      %p0 = f32[1000] parameter(0)
      %p1 = f32[25] parameter(1)
      %p2 = s32[] parameter(2)
      {body}
    }}
  """
  return moved(FUSED.replace("OUT", out), text, *others)


def test_a_fusion_reads_of_a_sliced_operand_only_the_slice():
  body = "%s = f32[25] dynamic-slice(%p0, %p2), dynamic_slice_sizes={25}\n      ROOT %r = f32[25] add(%s, %p1)"
  assert fused("f32[25]", body) == 100 + 100 + 100


def test_a_fusion_that_updates_in_place_writes_only_the_update():
  body = "ROOT %r = f32[1000] dynamic-update-slice(%p0, %p1, %p2)"
  assert fused("f32[1000]", body) == 100 + 100


def test_a_slice_is_found_in_a_fusion_within():
  inner = """
    %inner (q0: f32[1000], q1: s32[]) -> f32[25] {
      %q0 = f32[1000] parameter(0)
      %q1 = s32[] parameter(1)
      ROOT %t = f32[25] dynamic-slice(%q0, %q1), dynamic_slice_sizes={25}
    }
  """
  body = "%s = f32[25] fusion(%p0, %p2), kind=kLoop, calls=%inner\n      ROOT %r = f32[25] add(%s, %p1)"
  assert fused("f32[25]", body, inner) == 100 + 100 + 100


def test_an_operand_that_a_fusion_within_only_views_is_read_by_what_uses_the_view():
  view = """
    %view (q0: f32[1000]) -> f32[10,100] {
      %q0 = f32[1000] parameter(0)
      ROOT %t = f32[10,100] bitcast(%q0)
    }
  """
  body = (
    "%s = f32[10,100] fusion(%p0), kind=kLoop, calls=%view\n      ROOT %r = f32[10] reduce(%s, %p1), dimensions={1}"
  )
  assert fused("f32[10]", body, view) == 4000 + 100 + 40


def test_a_buffer_that_a_fusion_hands_on_to_a_collective_is_not_read_by_the_core():
  body = """%g = f32[4000] all-gather(%p0), replica_groups=[1,4]<=[4]
      %s = f32[25] negate(%p1)
      ROOT %r = (f32[25], f32[1000]) tuple(%s, %p0)"""
  assert fused("(f32[25], f32[1000])", body) == 100 + 100


@pytest.mark.parametrize(
  ("shapes", "operation", "expected"),
  [
    ("f32[25]{0:S(1)}, f32[25]{0}, u32[]", "copy-start(%a)", (100, 100)),  # onto the chip
    ("f32[25]{0}, f32[25]{0}, u32[]", "copy-start(%a)", (100, 200)),  # within HBM: read and written
    ("f32[25]{0:S(5)}, f32[25]{0}, u32[]", "copy-start(%a)", (100, 100)),  # to the host
    ("(f32[99]{0}), f32[25]{0:S(1)}, s32[]", "slice-start(%a)", (100, 100)),
    ("(f32[99]{0:S(5)}, s32[]), f32[25]{0}, u32[]", "dynamic-slice-start(%a, %i)", (100, 100)),
    ("(f32[99]{0:S(5)}, f32[25]{0}, s32[]), f32[99]{0}, u32[]", "dynamic-update-slice-start(%a, %b, %i)", (100, 100)),
  ],
)
def test_an_asynchronous_copy_moves_what_it_takes_and_costs_hbm_where_an_end_lies_there(shapes, operation, expected):
  operands = "%a = f32[99] parameter(0)\n%b = f32[25] parameter(1)\n%i = s32[] parameter(2)"
  _, _, x = found(f"{operands}\n%x = ({shapes}) {operation}", "x")
  assert copied_bytes(x) == expected
