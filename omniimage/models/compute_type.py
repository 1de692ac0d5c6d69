"""In which type a model computes: what its settings ask for, by what the devices have."""

import re

import jax
from absl import logging

AUTO, FULL, HALF = "auto", "float32", "bfloat16"
AMPERE = (8, 0)  # the first compute capability with bfloat16, and with cuDNN's flash attention


def compute_type(asked: str, device: jax.Device | None = None) -> str:
  """float32 or bfloat16, for `compute_dtype` of the settings and a device, by default JAX's first.

  "auto" is bfloat16 on TPUs and on GPUs that have it, float32 on CPUs, whose products of bfloat16 are slower. On a card
  without bfloat16, as a T4, it is float32 whatever is asked for: float16 would need losses scaled.
  """
  if asked == FULL:
    return FULL
  device = device or jax.devices()[0]
  if lacks_bfloat16(device):
    logging.log_first_n(
      logging.WARNING,
      "computes in float32, not in bfloat16, which %s (compute capability %s) does not have",
      1,
      device.device_kind,
      device.compute_capability,
    )
    return FULL
  return FULL if asked == AUTO and device.platform == "cpu" else HALF


def lacks_bfloat16(device: jax.Device) -> bool:
  """Whether it is a card of NVIDIA's from before Ampere."""
  found = capability(device)
  return found is not None and found < AMPERE


def capability(device: jax.Device) -> tuple[int, int] | None:
  """The compute capability of a GPU of NVIDIA's; None for all else. AMD's cards say `gfx90a` there."""
  found = re.fullmatch(r"(\d+)\.(\d+)", str(getattr(device, "compute_capability", "")))
  return (int(found[1]), int(found[2])) if found else None
