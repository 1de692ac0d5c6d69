"""Programs for an NVIDIA GPU, made where there is none: JAX lowers for it anywhere."""

import re
from collections import Counter

import jax
import pytest
from jax import export
from jax._src.cudnn import fused_attention_stablehlo

FORWARD, BACKWARD = "fmhaSoftmax", "fmhaSoftmaxBackward"  # without a mask
MASKED, MASKED_BACKWARD = "fmhaScaleBiasSoftmax", "fmhaScaleBiasSoftmaxBackward"
CUDNN = [f"__cudnn${name}" for name in (FORWARD, BACKWARD, MASKED, MASKED_BACKWARD)]


@pytest.fixture
def cudnn(monkeypatch):
  """A machine with cuDNN, as far as JAX asks when it lowers: that of its package for CUDA."""
  monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 92800)


def exported(fn, *args) -> export.Exported:
  """A jitted function and its (abstract) arguments as a program for CUDA."""
  checks = [export.DisabledSafetyCheck.custom_call(name) for name in CUDNN]  # no promise that later versions read them
  return export.export(fn, platforms=["cuda"], disabled_checks=checks)(*args)


def kernels(program: export.Exported) -> Counter:
  """How often cuDNN's kernels stand in it."""
  return Counter(re.findall(r"custom_call @__cudnn\$(\w+)", program.mlir_module()))


def half(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, "bfloat16")
