"""What a step needs on one card: the compiler's figures, put together; and by that compiler where it is installed."""

import importlib.util
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import jax
import pytest

from tests import small
from tests.benchmarks.without_flags import load

gpu_memory = load("gpu_memory")

ROOT = Path(__file__).parents[2]
GB = 10**9


def analysis(**gigabytes: float):
  return types.SimpleNamespace(**{f"{name}_size_in_bytes": int(size * GB) for name, size in gigabytes.items()})


def test_outputs_take_the_place_of_the_state_that_is_donated():
  found = gpu_memory.needed("joint", 4, analysis(argument=5, output=4.5, alias=4, temp=3), state=4 * GB)
  assert (found.state, found.temporaries, found.total) == (4 * GB, 3 * GB, int(8.5 * GB))


@pytest.mark.parametrize("total, fits", [(14.4, "yes"), (14.6, "no")])
def test_a_card_is_counted_as_nine_tenths_of_its_memory(total, fits):
  card = gpu_memory.CARDS["T4"]
  found = gpu_memory.Needed("prior", 2, GB, 2 * GB, int(total * GB))
  assert gpu_memory.line(found, card) == f"| prior | 2 | 1.00 | 2.00 | {total:.2f} | {fits} |"


@pytest.mark.parametrize("name", gpu_memory.CARDS)
def test_a_card_is_described_as_xla_reads_it(name):
  card = gpu_memory.CARDS[name]
  assert (
    f"major: {card.major} minor: {card.minor} " in card.target and f"device_memory_size: {card.memory}\n" in card.target
  )
  assert card.target.count("{") == card.target.count("}") == 3


def test_without_rows_it_is_the_state_twice_where_it_moves_and_the_gradients(monkeypatch):
  monkeypatch.setattr(gpu_memory, "device", lambda card: jax.devices()[0])
  config = small.config(**small.SHALLOW)
  found = {one.stage: one for one in gpu_memory.steps(config, gpu_memory.CARDS["L4"], [], [0])}
  params = jax.eval_shape(small.omni(small.settings(**small.SHALLOW)).init, jax.random.key(0))
  whole = 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
  joint, tokenizer = found["joint"], found["tokenizer"]
  assert joint.rows == 0 and joint.total == joint.state + joint.temporaries
  assert joint.temporaries == pytest.approx(joint.state + whole, rel=0.01), "all moves: the state anew, and gradients"
  assert tokenizer.temporaries < 0.5 * joint.temporaries and tokenizer.state > whole


@pytest.mark.skipif(
  not any(map(importlib.util.find_spec, ("jax_cuda12_plugin", "jax_cuda13_plugin"))), reason="needs the extra `cuda`"
)
def test_the_step_is_compiled_for_a_card_that_is_not_there():
  """A stage of the tiny model, in seconds."""
  command = [sys.executable, "-m", "benchmarks.gpu_memory", "--config=configs/scenes.py:tiny", "--card=T4",
             "--stages=tokenizer", "--rows=2", "--config.scan_layers=True"]  # fmt: skip
  environment = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "JAX_PLATFORMS")}
  done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert re.fullmatch(r"\| tokenizer \| 2 \| 0\.\d\d \| 0\.\d\d \| 0\.\d\d \| yes \|", done.stdout.splitlines()[-1])
