"""Programs whose costs can be computed on paper. A product takes 5 µs (2 at the peak); 1,000 received bytes take 1."""

import pytest

from tests.planning.snippets import OPERANDS, microseconds, priced, product

GATHER = "all-gather{}(%shard), replica_groups=[1,4]<=[4], dimensions={{0}}"  # of 4 × 1,000 bytes: 3 µs
START = f"%start = (f32[250], f32[1000]) {GATHER.format('-start')}"
DONE = "%done = f32[1000] all-gather-done(%start)"
SYNCHRONOUS = f"%gathered = f32[1000] {GATHER.format('')}"


def test_a_product_takes_its_flops_at_the_peak_at_least_and_the_compiler_s_estimate_at_most():
  cost = priced(f"{OPERANDS}{product()}")
  assert cost.flops == 2e6
  assert [microseconds(cost, level) for level in ("low", "likely", "high")] == [2, 5, 5]


def test_work_on_memory_takes_its_bytes_and_at_most_the_estimate():
  fusion = '%x = f32[250] negate(%shard), backend_config={"estimated_cycles":"CYCLES"}'
  slow = priced(OPERANDS + fusion.replace("CYCLES", "9000"))  # 2,000 bytes: 2 µs
  assert [microseconds(slow, level) for level in ("low", "likely", "high")] == [2, 2, 9]
  quick = priced(OPERANDS + fusion.replace("CYCLES", "1000"))
  assert [microseconds(quick, level) for level in ("low", "likely", "high")] == [1, 1, 1]
  assert slow.hbm_bytes == 2000


def test_what_is_free_costs_nothing():
  cost = priced(f"{OPERANDS}%t = (f32[250]) tuple(%shard)\n%g = f32[250] get-tuple-element(%t), index=0")
  assert microseconds(cost) == 0 and cost.hbm_bytes == 0 and not cost.operations


LOOP = """
  %body (carried: (f32[100,100])) -> (f32[100,100]) {
    %carried = (f32[100,100]{1,0:S(1)}) parameter(0)
    %square = f32[100,100]{1,0:S(1)} get-tuple-element(%carried), index=0
    %shard = f32[250]{0} parameter(1)
    INSIDE
    ROOT %out = (f32[100,100]{1,0:S(1)}) tuple(%product)
  }
"""
CONDITION = "%condition (c: (f32[100,100])) -> pred[] {\n  ROOT %c = pred[] parameter(0)\n}"
WHILE = """
%initial = (f32[100,100]{1,0:S(1)}) tuple(%square)
%loop = (f32[100,100]{1,0:S(1)}) while(%initial), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"7"}}
"""


def test_a_loop_multiplies_all_that_its_body_costs():
  cost = priced(OPERANDS + WHILE, LOOP.replace("INSIDE", f"{SYNCHRONOUS}\n    {product()}"), CONDITION)
  assert microseconds(cost) == 7 * (3 + 5)
  assert (cost.flops, cost.collective_bytes) == (7 * 2e6, {"all-gather": 7 * 3000})
  assert {(o.kind, o.count) for o in cost.operations} == {("forward", 7), ("all-gather", 7)}


def test_a_loop_without_a_known_count_runs_once_and_is_noted():
  unknown = WHILE.replace('backend_config={"known_trip_count":{"n":"7"}}', "metadata={}")
  condition = (
    "%condition (c: (f32[100,100])) -> pred[] {\n  %c = (f32[100,100]) parameter(0)\n  ROOT %p = pred[] rng()\n}"
  )
  cost = priced(OPERANDS + unknown, LOOP.replace("INSIDE", product()), condition)
  assert microseconds(cost) == 5 and "whose trips the text does not tell" in cost.notes[0]


def test_of_a_conditional_s_branches_the_dearest_counts():
  branch = "%{name} (a: f32[100,100]) -> f32[100,100] {{\n  %square = f32[100,100]{{1,0:S(1)}} parameter(0)\n{body}\n}}"
  quick = branch.format(name="quick", body="  " + product())
  slow = branch.format(name="slow", body=f"  {product()}\n  {product('again', 'product')}")
  choice = "%x = f32[100,100] conditional(%i, %square, %square), branch_computations={%quick, %slow}"
  cost = priced(f"{OPERANDS}%i = s32[] parameter(3)\n{choice}", quick, slow)
  assert (microseconds(cost), cost.flops) == (10, 4e6)
  assert "conditional" in cost.notes[0]


def test_a_synchronous_collective_stalls_the_core():
  cost = priced(f"{OPERANDS}{SYNCHRONOUS}\n{product()}")
  assert [microseconds(cost, level) for level in ("low", "likely", "high")] == [3 + 2, 3 + 5, 3 + 5]
  assert cost.synchronous_share == 1 and cost.synchronous_bytes == {"all-gather": 3000}


def test_an_asynchronous_gather_is_hidden_by_the_product_it_overlaps():
  cost = priced(f"{OPERANDS}{START}\n{product()}\n{DONE}")
  assert [microseconds(cost, level) for level in ("low", "likely", "high")] == [3, 5, 5]
  assert cost.collective_bytes == {"all-gather": 3000} and cost.synchronous_share == 0


def test_an_asynchronous_gather_that_nothing_overlaps_is_waited_for():
  cost = priced(f"{OPERANDS}{START}\n{DONE}\n{product()}")
  assert microseconds(cost) == 8
  assert ("all-gather wait", 3e-6) in {(o.kind, round(o.seconds, 9)) for o in cost.operations}


def test_a_transfer_that_the_program_never_waits_for_still_has_to_end():
  assert microseconds(priced(f"{OPERANDS}{START}")) == 3


def test_a_synchronous_collective_waits_until_the_network_is_free():
  cost = priced(f"{OPERANDS}{START}\n{SYNCHRONOUS}\n{DONE}")
  assert microseconds(cost) == 6 and cost.synchronous_share == 0.5


def test_a_reduce_scatter_written_as_a_fusion_counts_as_one_and_stalls():
  fused = """
    %all-reduce-scatter (input: f32[250]) -> f32[63] {
      %input = f32[250]{0} parameter(0)
      %sum = f32[250]{0} all-reduce(%input), replica_groups=[1,4]<=[4]
      ROOT %own = f32[63]{0:S(1)} dynamic-slice(%sum), dynamic_slice_sizes={63}
    }
  """
  cost = priced(f"{OPERANDS}%x = f32[63]{{0:S(1)}} fusion(%shard), kind=kCustom, calls=%all-reduce-scatter", fused)
  assert cost.collective_bytes == {"reduce-scatter": 750} == cost.synchronous_bytes
  assert microseconds(cost) == pytest.approx(0.75 + cost.hbm_bytes / 1000)


COLLECTIVE_FUSIONS = (
  """
  %starts (s: f32[250]) -> (f32[250], f32[1000], u32[]) {
    %s = f32[250]{0} parameter(0)
    %gather.1 = f32[1000]{0} all-gather(%s), replica_groups=[1,4]<=[4], dimensions={0}
    ROOT %call.1 = (f32[250]{0}, f32[1000]{0}, u32[]) custom-call(%gather.1), custom_call_target="AsyncCollectiveStart"
  }
  """,
  """
  %async_collective_fusion.1 (s.1: f32[250], whole: f32[1000], square: f32[100,100]) -> (f32[100,100], f32[1000]) {
    %s.1 = f32[250]{0} parameter(0)
    %whole = f32[1000]{0} parameter(1)
    %square = f32[100,100]{1,0:S(1)} parameter(2)
    %gather.2 = f32[1000]{0} all-gather(%s.1), replica_groups=[1,4]<=[4], dimensions={0}
    PRODUCT
    ROOT %both = (f32[100,100]{1,0:S(1)}, f32[1000]{0}) tuple(%product, %whole)
  }
  """.replace("PRODUCT", product()),
  """
  %ends (s.2: f32[250], whole.1: f32[1000]) -> f32[1000] {
    %s.2 = f32[250]{0} parameter(0)
    %whole.1 = f32[1000]{0} parameter(1)
    %gather.3 = f32[1000]{0} all-gather(%s.2), replica_groups=[1,4]<=[4], dimensions={0}
    ROOT %call.3 = f32[1000]{0} custom-call(%s.2, %whole.1, %gather.3), custom_call_target="AsyncCollectiveDone"
  }
  """,
)
CARRIED = """
  %start = (f32[250]{0}, f32[1000]{0}, u32[]) fusion(%shard), kind=kCustom, calls=%starts
  %mine = f32[250]{0} get-tuple-element(%start), index=0
  %buffer = f32[1000]{0} get-tuple-element(%start), index=1
  %middle = (f32[100,100]{1,0:S(1)}, f32[1000]{0}) fusion(%mine, %buffer, %square), kind=kOutput,
    calls=%async_collective_fusion.1, backend_config={"estimated_cycles":"5000"}
  %filled = f32[1000]{0} get-tuple-element(%middle), index=1
  %end = f32[1000]{0} fusion(%mine, %filled), kind=kCustom, calls=%ends
"""


def test_a_collective_that_fusions_carry_along_is_one_and_hidden_by_their_products():
  cost = priced(OPERANDS + CARRIED, *COLLECTIVE_FUSIONS)
  assert (microseconds(cost), cost.flops, cost.hbm_bytes) == (5, 2e6, 0)
  assert cost.collective_bytes == {"all-gather": 3000} and cost.synchronous_share == 0


SPARSE_CORE = """
  %offloaded (p: f32[250]) -> f32[1000] {
    %p = f32[250]{0} parameter(0)
    ROOT %gather = f32[1000]{0} all-gather(%p), replica_groups=[1,4]<=[4], dimensions={0}
  }, execution_thread="sparsecore"
"""
OFFLOADED = """
  %start = ((), (), (s32[1]{0:S(2)})) call-start(), async_execution_thread="sparsecore", to_apply=%offloaded
  BEFORE
  %update = ((f32[250]{0}), f32[1000]{0}) call-update(%start, %shard)
  BETWEEN
  %done = f32[1000]{0} call-done(%update)
"""


@pytest.mark.parametrize(("where", "expected"), [("BETWEEN", 5), ("BEFORE", 8)])
def test_a_sparse_core_gathers_from_when_it_gets_its_operands(where, expected):
  entry = OPERANDS + OFFLOADED.replace(where, product()).replace("BEFORE", "").replace("BETWEEN", "")
  cost = priced(entry, SPARSE_CORE)
  assert microseconds(cost) == expected
  assert cost.collective_bytes == {"all-gather": 3000} and cost.synchronous_share == 0


def test_a_copy_to_the_chip_overlaps_with_products_and_the_network():
  copy = "%c = (f32[250]{0:S(1)}, f32[250]{0}, u32[]) copy-start(%shard)"
  cost = priced(f"{OPERANDS}{START}\n{copy}\n{product()}\n%d = f32[250]{{0:S(1)}} copy-done(%c)\n{DONE}")
  assert (microseconds(cost), cost.hbm_bytes) == (5, 1000)


def test_what_is_kept_at_the_host_takes_a_way_of_its_own_and_is_noted():
  away = "%c = (f32[25000000]{0:S(5)}, f32[25000000]{0}, u32[]) copy-start(%shard)\n%d = f32[1] copy-done(%c)"
  cost = priced(OPERANDS + away)
  assert (microseconds(cost), cost.hbm_bytes) == (1e8 / 1.6e10 * 1e6, 1e8)
  assert cost.operations[0].kind == "host copy wait" and "the host's memory" in cost.notes[0]


def test_a_sum_between_slices_runs_from_its_send_to_the_end_of_its_recv():
  transfer = (
    'is_host_transfer=true, frontend_attributes={_xla_host_transfer_rendezvous="sum",'
    '_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}'
  )
  send = f"%token = token[] after-all()\n%send = (f32[250], u32[], token[]) send(%shard, %token), {transfer}"
  recv = f"%recv = (f32[250], u32[], token[]) recv(%token), {transfer}\n%sent = token[] send-done(%send)"
  done = "%received = (f32[250], token[]) recv-done(%recv)"
  cost = priced(f"{OPERANDS}{send}\n{recv}\n{product()}\n{done}")  # 1,000 bytes at a tenth of the pace
  assert microseconds(cost) == 10 and cost.collective_bytes == {"dcn-all-reduce": 1000}
  assert ("dcn-all-reduce wait", 5e-6) in {(o.kind, round(o.seconds, 9)) for o in cost.operations}


def test_a_kernel_runs_at_half_of_the_peak_and_one_of_unknown_flops_is_noted():
  call = '%own.1 = f32[250]{0:S(1)} custom-call(%shard), custom_call_target="tpu_custom_call"'
  cost = priced(OPERANDS + call, kernels=(lambda *_: 4e6,))
  assert (microseconds(cost), cost.kernel_flops, cost.flops) == (8, 4e6, 0)
  unknown = priced(OPERANDS + call)
  assert microseconds(unknown) == 1 and "kernel own of unknown FLOPs" in unknown.notes[0]


def test_operations_are_listed_dearest_first_and_add_up_to_the_likely_time():
  down = product("down", "product", "jit(step)/transpose(jvp(Prior))/down/dot_general")
  again = product("again", "down", "jit(step)/transpose(jvp(Prior))/down/dot_general")
  cost = priced(f"{OPERANDS}{product()}\n{SYNCHRONOUS}\n{down}\n{again}")
  listed = [(o.path, o.kind, o.count) for o in cost.operations]
  assert listed == [("prior/down", "backward", 2), ("prior/up", "forward", 1), ("(compiler)", "all-gather", 1)]
  assert sum(o.seconds for o in cost.operations) == pytest.approx(cost.seconds["likely"])
  assert sum(o.share for o in cost.operations) == pytest.approx(1)
