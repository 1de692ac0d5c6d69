"""Plans, with a compiler of our own in the place of TPU's."""

import types

import jax
import pytest

from configs import systems
from omniimage import plan as planning
from omniimage.errors import UserError
from omniimage.plan import DoesNotFit, Planner, does_not_fit, most_that_fits, plan
from tests import small
from tests.planning.snippets import OPERANDS, module, product

TOPOLOGY = "v5e:2x4"  # as many chips as there are test devices
ARGUMENTS, A_ROW = 2**30, 2**29  # bytes a chip: of parameters, and of each row that it holds


@pytest.fixture(autouse=True)
def compiler(monkeypatch):
  """Programs of one product, whose memory grows with their rows. Tells the rows that were compiled."""
  compiled = []

  def compile_rows(planner, rows):
    compiled.append(rows)
    temporaries = rows // planner.chips * A_ROW
    if ARGUMENTS + temporaries > planner.chip.hbm_bytes:
      gigabytes = (ARGUMENTS + temporaries) / 2**30
      raise DoesNotFit(f"Ran out of memory, the total memory required for HLO temporaries ({gigabytes:.2f}G) exceeds")
    peak = ARGUMENTS + 64 + temporaries
    sizes = dict(argument_size=ARGUMENTS, output_size=ARGUMENTS + 64, alias_size=ARGUMENTS, peak_memory=peak)
    memory = types.SimpleNamespace(**{f"{name}_in_bytes": size for name, size in sizes.items()})
    return types.SimpleNamespace(memory_analysis=lambda: memory), 1.5

  monkeypatch.setattr(planning, "devices", lambda topology, num_slices: jax.devices())
  monkeypatch.setattr(planning, "program_text", lambda compiled: module(OPERANDS + product()))
  monkeypatch.setattr(planning.importlib.metadata, "version", lambda name: "1.0")
  monkeypatch.setattr(Planner, "_compile", compile_rows)
  return compiled


def test_a_plan_has_every_key_that_the_documentation_names():
  made = plan(small.config(), TOPOLOGY)
  record = made.record
  assert record["stage"] == "joint" and record["chips"] == 8 and record["mesh"]["data"] == 8
  assert record["rows"] == 8 and record["images_per_chip"] == 2
  model = small.omni(small.settings())
  leaves = jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0)))
  assert record["parameters"] == sum(leaf.size for leaf in leaves)
  assert record["hbm_bytes_per_chip"] == {
    "arguments": ARGUMENTS, "outputs": 64, "temporaries": A_ROW, "total": ARGUMENTS + 64 + A_ROW
  }  # fmt: skip
  assert record["fits"] and record["compile_seconds"] == 1.5
  assert record["flops_per_chip"] == 2e6 and record["collective_bytes_per_chip"] == {}
  assert None not in record.values() and made.hlo.startswith("HloModule")


def test_a_stage_that_reads_codes_is_planned_without_the_encoder():
  images, codes = (
    plan(small.config(**{"data.codes": folder}), TOPOLOGY, stage="prior").record for folder in ("", "/codes")
  )
  assert 0 < codes["model_flops_per_chip"] < images["model_flops_per_chip"]


def test_the_low_mfu_belongs_to_the_high_seconds():
  record = plan(small.config(), TOPOLOGY).record
  seconds, share, flops = record["step_seconds"], record["mfu"], record["model_flops_per_chip"]
  assert share["low"] == pytest.approx(flops / (seconds["high"] * 197e12))
  assert share["high"] == pytest.approx(flops / (seconds["low"] * 197e12))
  assert share["low"] <= share["likely"] <= share["high"]


def test_figures_are_of_chips_where_a_chip_has_two_devices():
  config = small.config()
  one, two = plan(config, TOPOLOGY).record, plan(config, "tpu7x:2x2x1").record
  assert (one["chips"], two["chips"]) == (8, 4)
  assert two["flops_per_chip"] == 2 * one["flops_per_chip"] and two["hbm_capacity"] == 2 * 94.74 * 2**30
  assert two["hbm_bytes_per_chip"]["arguments"] == 2 * ARGUMENTS
  peak_seconds = two["step_seconds"]["low"] * 2 * 1153.5e12
  assert two["mfu"]["high"] == pytest.approx(two["model_flops_per_chip"] / peak_seconds)


def test_a_stage_is_chosen_by_name():
  record = plan(small.config(), TOPOLOGY, stage="tokenizer").record
  assert record["stage"] == "tokenizer"
  assert record["model_flops_per_chip"] < plan(small.config(), TOPOLOGY).record["model_flops_per_chip"]


def test_sampling_is_one_token_of_a_row_on_each_part_of_the_mesh_and_tells_what_it_must_read():
  record = plan(small.config(), TOPOLOGY, stage="sample").record
  assert (record["stage"], record["rows"], record["images_per_chip"]) == ("sample", 8, 0)
  layer = 4 * 32 * 32 + 3 * 32 * 64 + 2 * 32 + 2 * 16  # attention, MLP, their norms, norms of queries and keys
  head, cache = 32 * 128, 2 * 64 * 2 * 16  # of 64 codes, padded; keys and values of 64 places
  assert record["hbm_traffic_needed_per_chip"] == 4 * (2 * (layer + cache) + 32 + head)


def test_painting_is_a_chunk_of_every_row_in_all_its_steps_and_says_how_many_an_image_has():
  record = plan(small.config(), TOPOLOGY, stage="paint").record
  assert (record["stage"], record["rows"], record["images_per_chip"], record["times_an_image"]) == ("paint", 8, 0, 2)
  finer = small.config(**{"decoder.chunk_rows": (2,), "decoder.chunk_columns": (2,), "sampling.diffusion_steps": 11})
  finer = plan(finer, TOPOLOGY, stage="paint").record
  assert finer["times_an_image"] == 4 and record["model_flops_per_chip"] < finer["model_flops_per_chip"]
  with pytest.raises(UserError, match="paints no chunks that could be planned"):
    plan(systems.get_config("pixel_diffusion_tiny"), TOPOLOGY, stage="paint")


def test_a_step_that_does_not_fit_has_a_plan_without_costs():
  record = plan(small.config(**{"stages.joint.rows": 8 * 64}), TOPOLOGY).record
  assert record["fits"] is False and record["notes"][0].startswith("Ran out of memory")
  assert record["hbm_bytes_per_chip"] == {
    "arguments": None, "outputs": None, "temporaries": None, "total": ARGUMENTS + 64 * A_ROW
  }  # fmt: skip
  assert record["step_seconds"] is None and record["model_flops_per_chip"] > 0


def test_fit_finds_the_largest_batch_and_reports_every_try(compiler):
  said = []
  record = plan(small.config(), TOPOLOGY, fit=True, report=said.append).record
  assert record["rows_per_chip"] == 29  # 1 GiB + 29 × ½ GiB of 15.75
  assert compiler == [8 * rows for rows in (1, 2, 4, 8, 16, 32, 24, 28, 30, 29)]
  assert [tried["rows"] for tried in record["tries"]] == compiler and len(said) == len(compiler)
  assert "240 rows; 30 rows and 60 images a chip: does not fit, 17.18 of 16.91 GB a chip" in said


def test_fit_keeps_whole_microbatches(compiler):
  config = small.config(**{"stages.joint.accumulate": 4, "stages.joint.rows": 32})
  assert plan(config, TOPOLOGY, fit=True).record["rows_per_chip"] == 28
  assert all(rows % 32 == 0 for rows in compiler)


def test_fit_says_when_nothing_fits(monkeypatch):
  monkeypatch.setattr("tests.test_plan.ARGUMENTS", 2**35)
  record = plan(small.config(**{"stages.joint.rows": 32}), TOPOLOGY, fit=True).record
  assert record["fits"] is False and record["rows"] == 8


@pytest.mark.parametrize("ending", [".", ". HLO module: jit_step.\nSee https://openxla.org/xla/errors/error_1000"])
def test_the_compiler_s_error_tells_how_much_was_needed(ending):
  words = (
    "Ran out of memory on HBM, the total memory required for HLO temporaries (16.50G) exceeds available HBM (15.75G)"
  )
  error = does_not_fit(f"RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: {words}{ending}")
  assert str(error) == words and error.needed == 16.5 * 2**30


def test_a_kernel_that_is_too_large_for_the_chip_s_own_memory_is_not_taken_for_a_large_batch():
  assert does_not_fit("RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem. Used 20M of 16M vmem") is None


@pytest.mark.parametrize("start", [1, 3, 20, 64])
@pytest.mark.parametrize("most", [0, 1, 5, 16, 37])
def test_the_search_ends_at_the_most_that_fits(start, most):
  assert most_that_fits(lambda number: number <= most, start, 40) == most


def test_the_search_ends_at_its_limit():
  assert most_that_fits(lambda number: True, 3, 40) == 40


@pytest.mark.parametrize(
  ("changes", "arguments", "words"),
  [
    ({}, dict(topology="v5x:2x4"), "no chip 'v5x'"),
    ({}, dict(num_slices=0), "num_slices=0"),
    ({}, dict(stage="painter"), "stage='painter' is not in the config; there are"),
    ({"mesh.fsdp": 3}, {}, "3 does not divide the 8 devices"),
    ({"stages.joint.rows": 12}, {}, "stages.joint.rows=12 must be a multiple of"),
    ({"remat": "some"}, {}, "remat='some'"),
  ],
)
def test_what_cannot_work_is_said_before_anything_is_compiled(compiler, changes, arguments, words):
  with pytest.raises(UserError, match=words) as raised:
    plan(small.config(**changes), **{"topology": TOPOLOGY} | arguments)
  assert "\n" not in str(raised.value) and not compiler


def test_without_the_tpu_compiler_the_error_names_what_to_install(monkeypatch):
  monkeypatch.undo()
  monkeypatch.setattr(planning.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(UserError, match=r"pip install 'omniimage\[tpu\]'"):
    plan(small.config(), TOPOLOGY)
