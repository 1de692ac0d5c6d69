"""How parameters lie on the mesh: for each part one ordered table of (pattern, PartitionSpec).

A pattern must match the whole of a parameter's path; the first that does decides. Specs describe one layer: an array
under `layers` is a scanned stack and gets its leading None by itself. `P()` replicates an array of any rank. Optimizer
state and EMA lie like their parameter, found by the suffix of their path.

Axes in the comments: D width, H heads, K head width, F MLP width.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.tree_util import keystr

from omniimage.settings import SettingsError

Rules = tuple[tuple[str, P], ...]

LAYER_RULES: Rules = (  # of a transformer layer, in all parts
  (r"(.*/)?layers/(cross_)?attention/(query|key|value)/kernel", P("fsdp", "tensor", None)),  # (D, H, K)
  (r"(.*/)?layers/(cross_)?attention/out/kernel", P("tensor", None, "fsdp")),  # (H, K, D)
  (r"(.*/)?layers/mlp/(gate|up)/kernel", P("fsdp", "tensor")),  # (D, F)
  (r"(.*/)?layers/mlp/down/kernel", P("tensor", "fsdp")),  # (F, D)
  (r"(.*/)?(\w*norm/scale|bias)", P()),
)

CONSTANTS = ("ns_coeffs",)  # Newton–Schulz coefficients, which Optax keeps in Muon's state


def param_specs(rules: Rules, part: str, params: Any) -> Any:
  """The PartitionSpec of every parameter of a part; only shapes are read. Raises SettingsError naming the path."""
  return jax.tree.map_with_path(lambda path, leaf: _spec(rules, part, _name(path), leaf.shape), params)


def layer_specs(rules: Rules, part: str, params: Any) -> Any:
  """The PartitionSpec of every parameter of one layer, out of its stack."""
  return jax.tree.map_with_path(
    lambda path, leaf: P(*_spec(rules, part, f"layers/{_name(path)}", (1, *leaf.shape))[1:]), params
  )


def param_shardings(mesh: Mesh, rules: Rules, part: str, params: Any) -> Any:
  """The NamedSharding of every parameter of a part."""

  def place(path, leaf, spec):
    _check_divides(mesh, f"{part}/{_name(path)}", leaf.shape, spec)
    return NamedSharding(mesh, spec)

  return jax.tree.map_with_path(place, params, param_specs(rules, part, params))


def unstacked_shardings(mesh: Mesh, rules: Rules, part: str, params: Any) -> Any:
  """The NamedSharding of every parameter of a part whose layers are unstacked, as in sampling."""

  def place(path, leaf):
    name = _name(path)
    stacked = re.sub(r"layers_\d+/", "layers/", name)
    own = stacked == name
    spec = _spec(rules, part, name, leaf.shape) if own else P(*_spec(rules, part, stacked, (1, *leaf.shape))[1:])
    _check_divides(mesh, f"{part}/{name}", leaf.shape, spec)
    return NamedSharding(mesh, spec)

  return jax.tree.map_with_path(place, params)


def state_shardings(mesh: Mesh, rules: Mapping[str, Rules], abstract_state: Any) -> Any:
  """The NamedSharding of every array of a training state (params, ema and opt_state by part; scalars replicated).
  `rules` are those of each part."""
  shardings = jax.tree.map(lambda _: NamedSharding(mesh, P()), abstract_state)
  params, ema, opt_state = abstract_state.params, abstract_state.ema, abstract_state.opt_state
  return dataclasses.replace(
    shardings,
    params={part: param_shardings(mesh, rules[part], part, params[part]) for part in params},
    ema={part: param_shardings(mesh, rules[part], part, ema[part]) for part in ema},
    opt_state={part: _following(mesh, rules[part], part, opt_state[part], params[part]) for part in opt_state},
  )


def _following(mesh: Mesh, rules: Rules, part: str, opt_state: Any, params: Any) -> Any:
  """Shardings of a part's optimizer state: each array lies like the parameter whose path ends its own."""
  shapes = {_name(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(params)}
  leaves = jax.tree.leaves_with_path(param_shardings(mesh, rules, part, params))
  shardings = {_name(path): sharding for path, sharding in leaves}

  def place(path, leaf):
    name = _name(path)
    if leaf.shape == () or name.endswith(CONSTANTS):
      return NamedSharding(mesh, P())
    param = _longest_suffix(name, shapes)
    if param is None:
      raise SettingsError(f"opt_state/{part}/{name} {leaf.shape} follows no parameter: no path of {part} ends it")
    if leaf.shape != shapes[param]:
      raise SettingsError(f"opt_state/{part}/{name} {leaf.shape} has another shape than its parameter {shapes[param]}")
    return shardings[param]

  return jax.tree.map_with_path(place, opt_state)


def _spec(rules: Rules, part: str, name: str, shape: tuple[int, ...]) -> P:
  pattern, spec = next((rule for rule in rules if re.fullmatch(rule[0], name)), (None, None))
  if pattern is None:
    raise SettingsError(f"no sharding rule matches {part}/{name} {shape}; add one to the rules of {part}")
  if spec == P():
    return spec
  stacked = (None,) if "layers" in name.split("/") else ()
  if len(stacked) + len(spec) != len(shape):
    layer = " and the layers of a stack" if stacked else ""
    raise SettingsError(f"{part}/{name} {shape}: the rule {pattern!r} is for {len(spec)} dimensions{layer}")
  return P(*stacked, *spec)


def _check_divides(mesh: Mesh, name: str, shape: tuple[int, ...], spec: P):
  for dimension, entry in enumerate(spec):
    names = (entry,) if isinstance(entry, str) else entry or ()
    ways = math.prod(mesh.shape[axis] for axis in names)
    if shape[dimension] % ways:
      raise SettingsError(
        f"{name} {shape}: dimension {dimension} is {shape[dimension]}, which does not divide over "
        f"mesh.{'×'.join(names)}={ways}; change the model's width or the mesh"
      )


def _longest_suffix(name: str, names: Mapping[str, Any]) -> str | None:
  components = name.split("/")
  suffixes = ("/".join(components[start:]) for start in range(len(components)))
  return next((suffix for suffix in suffixes if suffix in names), None)


def _name(path: tuple) -> str:
  return keystr(path, simple=True, separator="/")
