"""Before jax is imported: eight CPU devices for every test, and compiled programs kept from one run to the next.

The files of tests that take longest come first.
"""

import os
import pathlib
from importlib import metadata
from importlib.util import find_spec

import pytest

TESTS = pathlib.Path(__file__).parent
COMPILED = TESTS.parent / ".pytest_cache" / "jax"  # 5-9 times faster to load than to compile
FLAGS = (
  "--xla_force_host_platform_device_count=8",
  # Tests compile far longer than they compute; without LLVM's optimizations they compile 3-5 times faster.
  "--xla_backend_optimization_level=0",
  "--xla_llvm_disable_expensive_passes=true",
)
if metadata.version("jaxlib").startswith("0.10."):  # 0.12 does not know the flag, and such a flag ends the process
  # Without MLIR's emitters a training step compiles in a quarter of the time. Commands and notebooks keep them.
  FLAGS += ("--xla_cpu_use_fusion_emitters=false",)

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(COMPILED))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

# Those that compile or start the most, the longest first: a worker that begins one of them last goes on alone. Workers
# take file by file in this order, which `make test` keeps them to.
LONGEST = (
  "distributed/test_training_sharded.py",
  "benchmarks/test_fault_trials.py",
  "launch/test_processes.py",
  "test_notebooks.py",
  "training/test_resume.py",
  "launch/test_commands.py",
  "launch/test_prompts_command.py",
  "prepare/test_preparing.py",
  "systems/test_omni_losses.py",
  "sampling/test_session.py",
  "training/test_step.py",
  "training/test_learning.py",
  "training/test_samples.py",
  "training/test_buckets.py",
  "interop/test_huggingface.py",
  "interop/test_start.py",
  "evaluation/suites/test_task_suites.py",
  "prepare/test_tokenize.py",
  "test_checkpoint.py",
  "test_lock.py",
  "test_signals.py",
)


@pytest.fixture
def bucket():
  """A bucket on this machine, gs://bucket, empty."""
  from benchmarks.fake_storage import shared

  if find_spec("gcsfs") is None:  # imported before it is set up, it would ask the server for gRPC
    pytest.skip("the extra `gcs`")
  storage = shared()
  yield storage
  storage.failing = 0.0
  for name in storage.objects:
    del storage.objects[name]


def pytest_collection_modifyitems(items):
  places = {TESTS / file: place for place, file in enumerate(LONGEST)}
  items.sort(key=lambda item: places.get(item.path, len(places)))
