"""Which kernels a mesh gets."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from omniimage.distributed.kernels import kernels_for
from omniimage.models.attention import dot_product_attention
from omniimage.models.kernels import attention_in_blocks, merged_rows


@dataclasses.dataclass
class FakeMesh:
  """Of one device that JAX calls by `platform`."""

  platform: str
  sequence: int = 1

  @property
  def devices(self):
    return np.array([SimpleNamespace(platform=self.platform)])

  @property
  def shape(self):
    return {"sequence": self.sequence}


@pytest.mark.parametrize("own_rows", [True, False])
@pytest.mark.parametrize("platform, merges", [("cpu", True), ("tpu", False), ("gpu", False)])
def test_rows_are_merged_where_that_is_faster(platform, merges, own_rows):
  kernels = kernels_for(FakeMesh(platform), own_rows)
  assert kernels.dot_general is (merged_rows if merges else jax.lax.dot_general)


@pytest.mark.parametrize("platform, product", [("cpu", attention_in_blocks), ("gpu", dot_product_attention)])
def test_attention_goes_in_blocks_where_caches_are_small(platform, product):
  assert kernels_for(FakeMesh(platform), own_rows=True).attention is product
  assert kernels_for(FakeMesh("cpu", sequence=2), own_rows=True).attention is dot_product_attention


def test_rows_that_are_cut_over_two_axes_are_not_merged():
  assert kernels_for(FakeMesh("cpu", sequence=2), own_rows=False).dot_general is jax.lax.dot_general
