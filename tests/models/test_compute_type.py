"""What a model computes in, by what its settings ask for and its devices have."""

from types import SimpleNamespace

import pytest
from absl import logging

from omniimage.distributed.mesh import make_mesh
from omniimage.models.compute_type import capability, compute_type
from omniimage.settings import MeshSettings, SettingsError
from omniimage.training.sharded import system_for
from tests import small


def device(platform: str, compute_capability: str | None = None):
  given = {} if compute_capability is None else {"compute_capability": compute_capability}
  return SimpleNamespace(platform=platform, device_kind=f"a {platform}", **given)


DEVICES = {
  "cpu": device("cpu"),
  "tpu": device("tpu"),
  "T4": device("gpu", "7.5"),
  "A100": device("gpu", "8.0"),
  "RTX 4090": device("gpu", "8.9"),
  "B200": device("gpu", "10.0"),
  "MI300": device("gpu", "gfx942"),
}


@pytest.mark.parametrize("name", DEVICES)
def test_auto_is_what_the_device_is_made_for(name):
  assert compute_type("auto", DEVICES[name]) == ("float32" if name in ("cpu", "T4") else "bfloat16")


@pytest.mark.parametrize("name", DEVICES)
def test_what_is_asked_for_is_taken_where_the_device_has_it(name):
  assert compute_type("float32", DEVICES[name]) == "float32"
  assert compute_type("bfloat16", DEVICES[name]) == ("float32" if name == "T4" else "bfloat16")


def test_a_card_without_bfloat16_says_so_in_one_line_once(monkeypatch):
  said = []
  monkeypatch.setattr(logging, "log_first_n", lambda level, text, n, *args: said.append((level, text % args, n)))
  compute_type("bfloat16", DEVICES["T4"])
  ((level, line, times),) = said
  assert (level, times) == (logging.WARNING, 1) and "\n" not in line
  assert line == "computes in float32, not in bfloat16, which a gpu (compute capability 7.5) does not have"
  for name in DEVICES.keys() - {"T4"}:
    compute_type("auto", DEVICES[name])
  assert len(said) == 1


def test_the_capability_is_read_as_numbers():
  assert capability(DEVICES["B200"]) == (10, 0) > capability(DEVICES["RTX 4090"]) == (8, 9)
  assert capability(DEVICES["MI300"]) is capability(DEVICES["cpu"]) is None


def test_a_system_computes_in_what_its_mesh_has_and_keeps_no_auto():
  settings = small.settings(compute_dtype="auto")
  system = system_for(settings, small.text_tokenizer().size, make_mesh(MeshSettings(-1, 1, 1, 1)))
  assert system.settings.compute_dtype == "float32" == system.omni.prior.execution.dtype
  assert small.system(settings).omni.prior.execution.dtype == "float32", "without a mesh, what the first device has"


def test_another_type_is_refused():
  with pytest.raises(SettingsError, match="compute_dtype='half': auto, float32 or bfloat16"):
    small.settings(compute_dtype="half")
