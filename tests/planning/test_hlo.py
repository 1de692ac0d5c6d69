"""Reading the text."""

import pytest

from omniimage.planning.hlo import parse
from tests.planning.snippets import found, module

BODY = """
  %body (carried: (s32[], f32[8])) -> (s32[], f32[8]) {
    %carried = (s32[], f32[8]{0}) parameter(0)
    %count = s32[] get-tuple-element(%carried), index=0
    %value = f32[8]{0} get-tuple-element(%carried), index=1
    %step = s32[] constant(STEP)
    %next = s32[] add(%count, %step)
    ROOT %out = (s32[], f32[8]{0}) tuple(%next, %value)
  }
"""
CONDITION = """
  %condition (carried.1: (s32[], f32[8])) -> pred[] {
    %carried.1 = (s32[], f32[8]{0}) parameter(0)
    %count.1 = s32[] get-tuple-element(%carried.1), index=0
    %limit = s32[] constant(LIMIT)
    ROOT %goes_on = pred[] compare(%count.1, %limit), direction=DIRECTION
  }
"""
LOOP = """
  %start = s32[] constant(2)
  %array = f32[8]{0} parameter(0)
  %initial = (s32[], f32[8]{0}) tuple(%start, %array)
  %loop = (s32[], f32[8]{0}) while(%initial), condition=%condition, body=%body
"""


def trips(entry: str = LOOP, body: str = BODY, condition: str = CONDITION, others: tuple = (), **values) -> int | None:
  for name, value in {"STEP": 1, "LIMIT": 9, "DIRECTION": "LT", **values}.items():
    body, condition = body.replace(name, str(value)), condition.replace(name, str(value))
  read, main, loop = found(entry, "loop", body, condition, *others)
  return read.trips(main, loop)


def test_an_instruction_is_taken_apart():
  read, main, product = found(
    """
    %a = bf16[2,3]{1,0:T(8,128)(2,1)} parameter(0)
    %b = bf16[3,5]{1,0:T(8,128)(2,1)S(1)} parameter(1)
    ROOT %product = (f32[2,5]{1,0}, u32[]{:S(2)}) custom-call(%a, /*index=1*/%b),
      custom_call_target="own", metadata={op_name="jit(f)/x" stack_frame_id=3}, backend_config={"estimated_cycles":"17"}
    """,
    "product",
  )
  assert (product.opcode, product.operands, product.target) == ("custom-call", ("a", "b"), "own")
  assert [(s.dtype, s.dims, s.memory_space) for s in product.shapes] == [("f32", (2, 5), 0), ("u32", (), 2)]
  assert [s.hbm_bytes for s in main.operand_shapes(product)] == [12, 0]
  assert (product.op_name, product.cycles, main.root, read.partitions) == ("jit(f)/x", 17, product, 4)


def test_what_the_compiler_does_not_estimate_has_no_cycles_and_a_negative_estimate_is_none_at_all():
  _, main, _ = found(
    """
    %a = f32[] parameter(0)
    %b = f32[] negate(%a), backend_config={"estimated_cycles":"-1"}
    """,
    "a",
  )
  assert (main.named["a"].cycles, main.named["b"].cycles) == (None, 0)


@pytest.mark.parametrize(
  ("dtype", "size"), [("pred", 1), ("s4", 0.5), ("bf16", 2), ("f8e4m3fn", 1), ("f32", 4), ("c64", 8), ("token", 0)]
)
def test_types_have_their_sizes(dtype, size):
  _, main, _ = found(f"%a = {dtype}[6]{{0}} parameter(0)", "a")
  assert main.named["a"].shapes[0].bytes == 6 * size


def test_attributes_may_be_broken_over_lines_and_hold_brackets():
  _, main, _ = found(
    """
    %a = f32[4]{0} parameter(0)
    %b = f32[4]{0} custom-call(%a), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
    "blocks":"(((8"
    }}, metadata={op_name="jit(f)/kernel"}
    %c = f32[4]{0} negate(%b)
    """,
    "c",
  )
  assert (main.named["b"].op_name, main.named["c"].operands) == ("jit(f)/kernel", ("b",))


def test_computations_of_other_units_end_where_they_say_so():
  other = """
    %offloaded (p: f32[4]) -> f32[4] {
      ROOT %p = f32[4]{0} parameter(0)
    }, execution_thread="sparsecore"
  """
  assert set(parse(module("%a = f32[] parameter(0)", other)).computations) == {"offloaded", "main"}


def test_the_stated_trip_count_is_believed():
  stated = LOOP.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"20"}}')
  assert trips(stated) == 20


@pytest.mark.parametrize(
  ("step", "limit", "direction", "expected"),
  [(1, 9, "LT", 7), (1, 9, "LE", 8), (3, 9, "LT", 3), (-1, 0, "GT", 2), (1, 2, "LT", 0)],
)
def test_an_unstated_trip_count_is_counted(step, limit, direction, expected):
  assert trips(STEP=step, LIMIT=limit, DIRECTION=direction) == expected


def test_a_counter_is_followed_through_fusions_and_copies():
  compare = """
    %compare (p0: s32[], p1: s32[]) -> pred[] {
      %p0 = s32[] parameter(0)
      %p1 = s32[] parameter(1)
      ROOT %less = pred[] compare(%p1, %p0), direction=LT
    }
  """
  fused = CONDITION.replace(
    "compare(%count.1, %limit), direction=DIRECTION", "fusion(%limit, %count.1), calls=%compare"
  )
  copied = BODY.replace("add(%count, %step)", "add(%copy, %step)").replace(
    "%step =", "%copy = s32[] copy(%count)\n    %step ="
  )
  assert trips(body=copied, condition=fused, others=(compare,)) == 7


def test_a_counter_that_comes_from_elsewhere_starts_at_zero():
  assert trips(LOOP.replace("%start = s32[] constant(2)", "%start = s32[] parameter(1)")) == 9


@pytest.mark.parametrize("still", ["STEP", "DIRECTION"])
def test_a_loop_that_the_text_does_not_bound_has_no_trip_count(still):
  assert (
    trips(**{"STEP": {"STEP": 0}, "DIRECTION": {"DIRECTION": "GT"}}[still], LIMIT=9 if still == "STEP" else -9) is None
  )
