"""Devices, or one line that says why there are none: a busy accelerator must not become a CPU in silence."""

import contextlib
import glob
import logging as standard_logging
import re
from collections.abc import Callable, Iterator
from importlib import metadata

import jax
from absl import logging

from omniimage.errors import UserError

# The package that lets JAX use an accelerator, and the files that show that this machine has one.
ACCELERATORS = {
  "TPU": (r"libtpu(-nightly)?", ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*")),
  "NVIDIA GPU": (r"jax-cuda\d+-plugin", ("/dev/nvidia[0-9]*", "/dev/dxg")),
  "AMD GPU": (r"jax-rocm\d+-plugin", ("/dev/kfd",)),
}
ON_CPU = "set JAX_PLATFORMS=cpu to run on the CPU"


def check_devices():
  """UserError where JAX_PLATFORMS asks for devices that are not there, or where an accelerator is there and JAX, whose
  package for it is installed, has only found CPUs. Without that package, or without the accelerator, a warning. Makes
  JAX look for its devices."""
  asked = jax.config.jax_platforms
  try:
    with _plugins_said() as said:
      devices = jax.devices()
  except Exception as error:  # an AssertionError without a word for JAX_PLATFORMS=cuda, else what the backend says
    reason = _line(str(error)) or said() or "JAX finds none on this machine, or lacks the package for them"
    what = f"there are no devices for JAX_PLATFORMS={asked}" if asked else "the devices cannot be used"
    raise UserError(f"{what}: {reason}; see that no other process holds them, or {ON_CPU}") from None
  if asked or {device.platform for device in devices} != {"cpu"}:
    return
  installed = {re.sub(r"[-_.]+", "-", found.name or "").lower() for found in metadata.distributions()}
  for name, (package, patterns) in ACCELERATORS.items():
    there = sorted(path for pattern in patterns for path in glob.glob(pattern))
    if there and any(re.fullmatch(package, found) for found in installed):
      raise UserError(
        f"this machine has a {name} ({there[0]}), and JAX could not use it: another process may hold it, or it is "
        f"hidden or does not fit what is installed{said(' (', ')')}; end that process, or {ON_CPU}"
      )
    if there and name != "TPU":  # /dev/vfio may be of anything
      logging.warning(
        "this machine has a %s (%s), but JAX is installed without its package: on the CPU", name, there[0]
      )
  if said():
    logging.warning("JAX's package for an accelerator finds none it can use (%s): on the CPU", said())


@contextlib.contextmanager
def _plugins_said() -> Iterator[Callable[..., str]]:
  """What JAX's packages for accelerators complain of while it looks for devices, which JAX would log as tracebacks.
  What is yielded gives it as one line between two texts, empty where nothing was said."""
  logger, kept = standard_logging.getLogger("jax._src.xla_bridge"), []

  def keep(record: standard_logging.LogRecord) -> bool:
    if record.exc_info and record.exc_info[1]:
      kept.append(_line(str(record.exc_info[1])))
      return False
    return True

  logger.addFilter(keep)
  try:
    yield lambda before="", after="": f"{before}{kept[0]}{after}" if kept else ""
  finally:
    logger.removeFilter(keep)


def _line(text: str) -> str:
  return " ".join(text.split())[:300].rstrip(". ")
