import pytest
from absl import app

from tests.benchmarks.without_flags import load

steps = load("steps")


def test_time_in_which_two_operations_run_is_shared_by_them():
  spans = [[0, 10e9, "dot.1"], [5e9, 10e9, "fusion.2"], [12e9, 13e9, "fusion.2"]]
  assert steps._shared(spans, lambda op: op) == {"dot.1": pytest.approx(7.5), "fusion.2": pytest.approx(3.5)}


def test_a_loop_gives_way_to_what_runs_inside_it():
  spans = [[0, 10e9, "while.1"], [1e9, 3e9, "dot.1"]]
  assert steps._shared(spans, lambda op: op) == {"dot.1": pytest.approx(2)}


@pytest.mark.parametrize(
  "op, module, kind",
  [
    ("dot.7", "jit(train_step)/jvp(Prior)/layers_0/attention/query/dot_general", "matrix products"),
    ("dot.8", "jit(train_step)/transpose(jvp(Prior))/layers_0/mlp/gate/dot_general", "matrix products"),
    ("dot.9", "jit(train_step)/jvp(Prior)/layers_0/attention/dot_general", "attention"),
    ("fusion.1", "jit(train_step)/jvp(Prior)/layers_0/attention/exp", "attention"),
    ("fusion.2", "jit(train_step)/jvp(Prior)/layers_0/attention/query_norm/mul", "norms and the rest"),
    ("fusion.3", "jit(train_step)/jvp()/while/body/closed_call/mul", "softmax"),
    ("dot.3", "jit(train_step)/vmap()/closed_call/dot_general", "optimizer"),
    ("fusion.4", "jit(train_step)/mul", "optimizer"),
  ],
)
def test_operations_are_told_apart_by_their_module(op, module, kind):
  assert steps.kind_of(op, module) == kind


def test_a_checkout_is_measured_by_its_own_benchmark(tmp_path, monkeypatch):
  program = tmp_path / "benchmarks" / "steps.py"
  program.parent.mkdir()
  program.write_text(
    "import pathlib, sys\n"
    "child = [a for a in sys.argv if a.startswith('--child=')][0]\n"
    "pathlib.Path(child.removeprefix('--child=')).write_text('{\"prior\": {\"own\": true}}')\n"
  )
  monkeypatch.setattr(steps.sys, "argv", ["steps.py", "--before", "elsewhere", "--rounds=2", "--config=c.py"])
  assert steps._in_process(tmp_path) == {"prior": {"own": True}}
  assert steps._for_child(["--before", "elsewhere", "--rounds=2", "--steps", "3"]) == ["--steps", "3"]
  with pytest.raises(app.UsageError, match="cannot be measured"):
    steps._in_process(tmp_path / "older")
