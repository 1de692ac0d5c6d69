"""A plan as a person reads it."""

from omniimage.planning.table import line, table

RECORD = {
  "topology": "v5e:16x16",
  "num_slices": 2,
  "stage": "joint",
  "chips": 512,
  "mesh": {"data": 32, "fsdp": 16, "tensor": 1, "sequence": 1},
  "rows": 4096,
  "rows_per_chip": 8.0,
  "images_per_chip": 1.0,
  "parameters": 1_300_000_000,
  "hbm_bytes_per_chip": {"arguments": 2e9, "outputs": 0, "temporaries": 1e10, "total": 1.2e10},
  "hbm_capacity": 1.6e10,
  "fits": True,
  "flops_per_chip": 1.4e14,
  "model_flops_per_chip": 1.2e14,
  "hbm_traffic_per_chip": 2e11,
  "collective_bytes_per_chip": {"all-reduce": 1e9, "all-gather": 4e9},
  "synchronous_share": 0.25,
  "step_seconds": {"low": 0.9, "likely": 1.0, "high": 1.2},
  "mfu": {"low": 0.51, "likely": 0.61, "high": 0.68},
  "compile_seconds": 30.4,
  "operations": [{"path": "prior/layers/mlp/up", "kind": "backward", "seconds": 0.12, "share": 0.12, "count": 40}],
  "notes": ["1 × sort without the compiler's estimate, priced by its bytes"],
}
UNKNOWN = ("flops_per_chip", "step_seconds", "mfu", "operations", "collective_bytes_per_chip")


def test_the_table_tells_totals_and_the_dearest_operations():
  text = table(RECORD)
  for words in (
    "joint on 2 × v5e:16x16",
    "512 of 2 × v5e:16x16, mesh data 32 × fsdp 16",
    "1,300,000,000",
    "4,096 rows; 8 rows and 1 image a chip",
    "12.00 of 16.00 GB a chip (arguments 2, outputs 0, temporaries 10)",
    "5 GB a chip (all-gather 4, all-reduce 1), 25% synchronous",
    "low 51.0% · likely 61.0% · high 68.0%",
    "note: 1 × sort",
  ):
    assert words in text
  assert "prior/layers/mlp/up backward 120.000 12.0% 40" in " ".join(text.split())


def test_traffic_of_sampling_is_set_against_what_it_needs_and_silence_of_the_network_is_said():
  text = table(RECORD | {"hbm_traffic_needed_per_chip": 1.6e11, "collective_bytes_per_chip": {}})
  assert "200 GB a chip, 1.25 × weights and caches" in text and "received    nothing" in text


def test_a_plan_that_does_not_fit_says_so_and_why():
  found = {"hbm_bytes_per_chip": {"total": 2e10}, "fits": False, "notes": ["Ran out of memory"]}
  record = RECORD | dict.fromkeys(UNKNOWN) | found
  assert "does not fit" in table(record) and "note: Ran out of memory" in table(record)
  assert line(record) == "4,096 rows; 8 rows and 1 image a chip: does not fit, 20.00 of 16.00 GB a chip"
  assert line(record | {"hbm_bytes_per_chip": {"total": None}}).endswith("a chip: does not fit")


def test_a_try_is_one_line():
  assert line(RECORD).endswith("GB a chip (arguments 2, outputs 0, temporaries 10); 1 s, MFU 61.0%")
