"""Before jax is imported: eight CPU devices for every test, and compiled programs kept from one run to the next."""

import os
import pathlib

COMPILED = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"  # 5-9 times faster to load than to compile
FLAGS = (
  "--xla_force_host_platform_device_count=8",
  # Tests compile far longer than they compute; without LLVM's optimizations they compile 3-5 times faster.
  "--xla_backend_optimization_level=0",
  "--xla_llvm_disable_expensive_passes=true",
)

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(COMPILED))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
