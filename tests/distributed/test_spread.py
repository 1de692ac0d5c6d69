"""Rows over devices: each row becomes what it becomes on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.distributed.spread import Spread
from omniimage.sampling.drawing import keys_of

ROWS = 8


def noisy(params, x, keys, mask=None, *, times):
  """Of each row: a product and noise of its own key."""
  noise = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(keys)
  y = x @ params["kernel"] * times + noise
  return {"y": y if mask is None else jnp.where(mask[:, None], y, 0.0), "first": x[:, 0]}


def spread(devices: int) -> Spread:
  return Spread(tuple(jax.devices()[:devices]))


def drawn(devices: int, rows: int = ROWS, own: slice = slice(None), **more):
  rng = np.random.default_rng(0)
  params = {"kernel": rng.standard_normal((5, 5)).astype(np.float32)}
  x = rng.standard_normal((rows, 5)).astype(np.float32)[own]
  over, keys = spread(devices), keys_of(range(rows))[own]
  run = over.over_rows(noisy, static_argnames=("times",))
  return jax.tree.map(np.asarray, run(over.place(params), x, keys, times=2, **more))


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_rows_are_the_same_bits_on_any_number_of_devices(devices):
  each = ROWS // devices
  alone = [drawn(1, own=slice(i, i + each)) for i in range(0, ROWS, each)]  # one device, as many rows
  together = drawn(devices)
  for name in ("y", "first"):
    np.testing.assert_array_equal(together[name], np.concatenate([own[name] for own in alone]))


@pytest.mark.parametrize("rows", [1, 3, 6, 9])
def test_rows_that_do_not_divide_over_the_devices_are_all_there_and_no_more(rows):
  four, one = drawn(4, rows), drawn(1, rows)
  assert len(four["y"]) == rows
  np.testing.assert_allclose(four["y"], one["y"], rtol=1e-6)


def test_trees_given_by_name_are_rows_too_and_none_is_nothing():
  mask = np.arange(ROWS) % 2 == 0
  masked, whole = drawn(4, mask=mask), drawn(4, mask=None)
  np.testing.assert_array_equal(masked["y"][mask], whole["y"][mask])
  assert not masked["y"][~mask].any()


def test_every_device_works_on_its_own_rows_alone():
  over = spread(4)
  run = over.over_rows(lambda params, x: x + params)
  out = run(over.place(np.float32(1)), np.zeros((8, 3), np.float32))
  assert [shard.data.shape for shard in out.addressable_shards] == [(2, 3)] * 4
  assert {shard.device for shard in out.addressable_shards} == set(over.devices)


def test_parameters_that_lie_on_the_devices_already_stay_where_they_are():
  over = spread(2)
  placed = over.place({"a": np.ones(3)})
  assert over.place(placed)["a"] is placed["a"]
