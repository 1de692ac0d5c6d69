import pytest
from absl import app, flags  # noqa: F401  which defines flags of its own

before = set(flags.FLAGS)
from benchmarks import steps  # noqa: E402  its flags would stand in the way of the commands'

for name in set(flags.FLAGS) - before:
  delattr(flags.FLAGS, name)


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
