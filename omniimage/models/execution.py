"""How the layers of a part are run. It changes time and memory; the result only by rounding."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from omniimage.models.compute_type import compute_type
from omniimage.models.kernels import PLAIN, Kernels
from omniimage.models.remat import remat_policy
from omniimage.settings import Settings


class GatherParams(Protocol):
  """Makes whole what is stored in slices, where parameters are gathered by hand (`omniimage.distributed.fsdp`)."""

  def layer(self, part: str, params: dict) -> dict:
    """The parameters of one layer of a part, just before it runs."""

  def rest(self, part: str, params: dict) -> dict:
    """All other parameters of a part."""


@dataclasses.dataclass(frozen=True)
class Execution:
  """How a part is run. Flax compares modules by their fields, so it is hashable.

  Attributes:
    scan: one compiled layer looped over stacked parameters, or all layers unrolled.
    remat: what the backward pass finds saved, of `models.remat.SAVED`, or "offload"; "none": nothing is recomputed.
    dtype: of activations; parameters are float32.
    kernels: what its products are computed by.
    gather_params: maps the parameters of one layer just before it runs (hand-written FSDP enters here).
  """

  scan: bool = True
  remat: str = "none"
  dtype: Any = jnp.float32
  kernels: Kernels = PLAIN
  gather_params: Callable[[dict], dict] | None = None


def execution_of(
  settings: Settings, part: str, scan: bool, kernels: Kernels, gather_params: GatherParams | None
) -> Execution:
  """How a part of a model is run under these settings; `gather_params` as of `view`."""
  gather = gather_params and functools.partial(gather_params.layer, part)
  dtype = jnp.dtype(compute_type(settings.compute_dtype))
  return Execution(scan, settings.remat, dtype, kernels, gather)


def view(params: dict, scan: bool, gather_params: GatherParams | None) -> dict:
  """Stored parameters, by part, as modules take them that are run so: what is outside of layers gathered, layers
  unstacked where they are not scanned."""
  if gather_params is not None:
    params = {part: gather_params.rest(part, params[part]) for part in params}
  return params if scan else unstack_layers(params)


def layer_stack(block: type[nn.Module], depth: int, execution: Execution, **fields):
  """The layers of a model: one scanned module with stacked parameters, or a list of `depth` modules.

  Parameters are stored stacked, under `layers`. A module built with `scan=False` takes them through `unstack_layers`.
  """
  gather_params, scan = execution.gather_params, execution.scan
  fields = {**fields, "execution": execution}
  if gather_params is not None:
    block = nn.map_variables(block, "params", trans_in_fn=lambda v: {"params": gather_params(v["params"])})
  if execution.remat != "none":
    block = nn.remat(block, prevent_cse=not scan, policy=remat_policy(execution.remat))
  if not scan:
    return [block(**fields, name=f"layers_{i}") for i in range(depth)]
  scanned = nn.scan(block, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=nn.broadcast, length=depth)
  return scanned(**fields, name="layers")


def apply_layers(layers, x: Array, *args, caches: tuple | None = None):
  """Runs a stack of layers: (x, *args[, cache]) → (x, cache). Caches go with unstacked layers only."""
  if not isinstance(layers, (list, tuple)):
    return layers(x, *args)[0], None
  new_caches = []
  for i, layer in enumerate(layers):
    x, cache = layer(x, *args) if caches is None else layer(x, *args, caches[i])
    new_caches.append(cache)
  return x, None if caches is None else tuple(new_caches)


def unstack_layers(params: dict) -> dict:
  """Parameters of a scanned model as those of the same model unrolled: `layers` → `layers_0`, `layers_1`, …"""
  unstacked = {}
  for name, value in params.items():
    if name == "layers":
      depth = jax.tree.leaves(value)[0].shape[0]
      unstacked |= {f"layers_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], value) for i in range(depth)}
    else:
      unstacked[name] = unstack_layers(value) if isinstance(value, dict) else value
  return unstacked


def stack_layers(params: dict) -> dict:
  """The inverse of `unstack_layers`."""
  stacked, layers = {}, {}
  for name, value in params.items():
    if name.startswith("layers_"):
      layers[int(name.removeprefix("layers_"))] = value
    else:
      stacked[name] = stack_layers(value) if isinstance(value, dict) else value
  if layers:
    stacked["layers"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(layers[i] for i in sorted(layers)))
  return stacked
