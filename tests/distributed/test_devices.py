"""Devices that are not there, or that JAX cannot use, are one line."""

import logging
import types

import jax
import pytest

from omniimage.distributed import devices
from omniimage.distributed.devices import check_devices
from omniimage.errors import UserError


@pytest.fixture
def machine(monkeypatch):
  """A machine with these files and packages, where JAX finds these devices if it is told no platform."""

  def pretend(paths=(), packages=(), platform="cpu", asked=None, error=None, complaint=None):
    def find():
      if complaint:
        try:
          raise complaint
        except Exception:
          logging.getLogger("jax._src.xla_bridge").exception("Jax plugin configuration error")
      if error:
        raise error
      return [types.SimpleNamespace(platform=platform)]

    found = [types.SimpleNamespace(name=name) for name in (*packages, "jax", None)]
    by_pattern = {pattern: [path for path in paths if path.startswith(pattern.split("[")[0])] for pattern in PATTERNS}
    monkeypatch.setattr(
      devices, "jax", types.SimpleNamespace(devices=find, config=types.SimpleNamespace(jax_platforms=asked))
    )
    monkeypatch.setattr(devices.glob, "glob", by_pattern.__getitem__)
    monkeypatch.setattr(devices.metadata, "distributions", lambda: found)

  return pretend


PATTERNS = [pattern for _, patterns in devices.ACCELERATORS.values() for pattern in patterns]
BUSY = [
  (("/dev/accel0", "/dev/accel1"), ("libtpu",), "TPU (/dev/accel0)"),
  (("/dev/vfio/0",), ("libtpu-nightly",), "TPU (/dev/vfio/0)"),
  (("/dev/nvidia0",), ("jax_cuda12_plugin",), "NVIDIA GPU (/dev/nvidia0)"),
  (("/dev/dxg",), ("jax-cuda13-plugin",), "NVIDIA GPU (/dev/dxg)"),
  (("/dev/kfd",), ("jax-rocm7-plugin",), "AMD GPU (/dev/kfd)"),
]


@pytest.mark.parametrize("paths, packages, said", BUSY)
def test_an_accelerator_that_jax_cannot_use_is_no_cpu_in_silence(machine, paths, packages, said):
  machine(paths, packages)
  with pytest.raises(UserError, match="could not use it") as error:
    check_devices()
  assert said in str(error.value) and "set JAX_PLATFORMS=cpu" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("asked", ["cpu", "cuda,cpu"])
def test_a_cpu_that_was_asked_for_is_used(machine, asked):
  machine(("/dev/nvidia0",), ("jax-cuda12-plugin",), asked=asked)
  check_devices()


@pytest.mark.parametrize(
  "paths, packages, platform",
  [
    ((), (), "cpu"),
    ((), ("libtpu",), "cpu"),  # for planning
    (("/dev/vfio/0",), (), "cpu"),
    (("/dev/nvidia0",), ("jax-cuda12-plugin",), "gpu"),
    (("/dev/accel0",), ("libtpu",), "tpu"),
  ],
)
def test_nothing_is_said_where_nothing_is_wrong(machine, caplog, paths, packages, platform):
  machine(paths, packages, platform)
  check_devices()
  assert not caplog.records


def test_a_gpu_that_jax_was_installed_without_is_pointed_out(machine, caplog):
  machine(("/dev/nvidia0",))
  check_devices()
  assert "NVIDIA GPU (/dev/nvidia0), but JAX is installed without its package" in caplog.text


@pytest.mark.parametrize(
  "asked, error, said",
  [
    ("cuda", AssertionError(), "no devices for JAX_PLATFORMS=cuda: JAX finds none on this machine"),
    (
      "tpu",
      RuntimeError("Unable to initialize\n  backend 'tpu'"),
      "JAX_PLATFORMS=tpu: Unable to initialize backend 'tpu'",
    ),
    (None, RuntimeError("Unable to initialize backend 'cuda'"), "the devices cannot be used: Unable to initialize"),
  ],
)
def test_devices_that_are_asked_for_and_not_there_are_one_line(machine, asked, error, said):
  machine(asked=asked, error=error)
  with pytest.raises(UserError) as raised:
    check_devices()
  assert said in str(raised.value) and "set JAX_PLATFORMS=cpu" in str(raised.value) and "\n" not in str(raised.value)


def test_the_devices_of_these_tests_are_cpus():
  check_devices()
  assert jax.config.jax_platforms == "cpu"


NO_DRIVER = RuntimeError("operation cuInit(0) failed:\nUnknown CUDA error 303")  # what JAX's package for CUDA says


@pytest.mark.parametrize("paths, asked, error", [(("/dev/nvidia0",), None, None), ((), "cuda", AssertionError())])
def test_why_a_gpu_cannot_be_used_is_in_the_line_and_in_no_traceback(machine, caplog, paths, asked, error):
  machine(paths, ("jax-cuda12-plugin",), asked=asked, error=error, complaint=NO_DRIVER)
  with pytest.raises(UserError) as raised:
    check_devices()
  assert "operation cuInit(0) failed: Unknown CUDA error 303" in str(raised.value) and "\n" not in str(raised.value)
  assert not caplog.records


def test_a_package_for_a_gpu_where_there_is_none_is_one_line(machine, caplog):
  machine((), ("jax-cuda12-plugin",), complaint=NO_DRIVER)
  check_devices()
  (record,) = caplog.records
  line = record.getMessage()
  assert "finds none it can use (operation cuInit(0) failed: Unknown CUDA error 303): on the CPU" in line
  assert "\n" not in line and not record.exc_info
