"""Which kernels a mesh gets."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from omniimage.distributed.kernels import kernels_for
from omniimage.models.attention import dot_product_attention
from omniimage.models.cudnn import cudnn_attention
from omniimage.models.kernels import attention_in_blocks, merged_rows
from omniimage.models.splash import splash_attention


@dataclasses.dataclass
class FakeMesh:
  """Of one device that JAX calls by `platform`, and a GPU's compute capability."""

  platform: str
  sequence: int = 1
  capability: str = "8.0"

  @property
  def devices(self):
    return np.array([SimpleNamespace(platform=self.platform, compute_capability=self.capability)])

  @property
  def shape(self):
    return {"sequence": self.sequence}


@pytest.mark.parametrize("own_rows", [True, False])
@pytest.mark.parametrize("platform, merges", [("cpu", True), ("tpu", False), ("gpu", False)])
def test_rows_are_merged_where_that_is_faster(platform, merges, own_rows):
  kernels = kernels_for(FakeMesh(platform), own_rows)
  assert kernels.dot_general is (merged_rows if merges else jax.lax.dot_general)


def test_rows_that_are_cut_over_two_axes_are_not_merged():
  assert kernels_for(FakeMesh("cpu", sequence=2), own_rows=False).dot_general is jax.lax.dot_general


@pytest.mark.parametrize(
  "mesh, own",
  [
    (FakeMesh("cpu", capability=""), attention_in_blocks),
    (FakeMesh("cpu", capability="", sequence=2), dot_product_attention),
    (FakeMesh("tpu", capability=""), splash_attention),
    (FakeMesh("gpu", capability="8.0"), cudnn_attention),
    (FakeMesh("gpu", capability="12.0"), cudnn_attention),
    (FakeMesh("gpu", capability="7.5"), dot_product_attention),  # a T4: cuDNN's kernel begins at 8.0
    (FakeMesh("gpu", capability="gfx942"), dot_product_attention),  # AMD's
  ],
)
def test_attention_is_by_the_kernel_that_the_device_has(mesh, own):
  assert kernels_for(mesh, own_rows=True).attention is own
  sharded = {dot_product_attention: "sharded_dot_product", splash_attention: "sharded_splash"}
  sharded[attention_in_blocks] = "sharded_dot_product"
  name = kernels_for(mesh, own_rows=False).attention.__qualname__.split(".")[0]
  assert name == sharded.get(own, "sharded_cudnn")
