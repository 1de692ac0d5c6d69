"""How parameters lie on the mesh: for each part one ordered table of (pattern, PartitionSpec).

A pattern must match the whole of a parameter's path; the first that does decides. Specs describe one layer: an array
under `layers` is a scanned stack and gets its leading None by itself. `P()` replicates an array of any rank. Optimizer
state and EMA lie like their parameter, found by the suffix of their path.

Axes in the comments: D width, H heads, K head width, F MLP width, V text table, C codebook, P pixels of a patch,
Z quantizer channels, T time features. P, Z and T are small and odd, and never sharded.
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

LAYER_RULES: Rules = (  # of a transformer layer, in all three parts
  (r"(.*/)?layers/(cross_)?attention/(query|key|value)/kernel", P("fsdp", "tensor", None)),  # (D, H, K)
  (r"(.*/)?layers/(cross_)?attention/out/kernel", P("tensor", None, "fsdp")),  # (H, K, D)
  (r"(.*/)?layers/mlp/(gate|up)/kernel", P("fsdp", "tensor")),  # (D, F)
  (r"(.*/)?layers/mlp/down/kernel", P("tensor", "fsdp")),  # (F, D)
  (r"(.*/)?(\w*norm/scale|bias)", P()),
)

TOKENIZER_RULES: Rules = (
  (r"encoder/patches/kernel|decoder/codes/kernel", P(None, "fsdp")),  # (P, D) and (Z, D)
  (r"encoder/codes/kernel|decoder/pixels/kernel", P("fsdp", None)),  # (D, Z) and (D, P)
  (r"quantizer/.*", P()),  # (C, Z), where a codebook is learnt
  *LAYER_RULES,
)

PRIOR_RULES: Rules = (
  (r"embed/(text|image)", P(("fsdp", "tensor"), None)),  # (V, D) and (C, D)
  (r"head/(text|image)", P("fsdp", "tensor")),  # (D, V) and (D, C)
  *LAYER_RULES,
)

DECODER_RULES: Rules = (
  (r"(patches|tokens|time/hidden)/kernel", P(None, "fsdp")),  # (P, D), (Z, D) and (T, D)
  (r"(text|time/out|modulation|final_modulation|pixels)/kernel", P("fsdp", None)),  # (D, D), (D, 6D), (D, 2D), (D, P)
  (r"null_(tokens|text)|layers/modulation", P()),  # (D) and (6, D)
  *LAYER_RULES,
)

CONSTANTS = ("ns_coeffs",)  # Newton–Schulz coefficients, which Optax keeps in Muon's state
RULES = {"tokenizer": TOKENIZER_RULES, "prior": PRIOR_RULES, "decoder": DECODER_RULES}


def param_specs(part: str, params: Any) -> Any:
  """The PartitionSpec of every parameter of a part; only shapes are read. Raises SettingsError naming the path."""
  return jax.tree.map_with_path(lambda path, leaf: _spec(part, _name(path), leaf.shape), params)


def layer_specs(part: str, params: Any) -> Any:
  """The PartitionSpec of every parameter of one layer, out of its stack."""
  return jax.tree.map_with_path(
    lambda path, leaf: P(*_spec(part, f"layers/{_name(path)}", (1, *leaf.shape))[1:]), params
  )


def param_shardings(mesh: Mesh, part: str, params: Any) -> Any:
  """The NamedSharding of every parameter of a part."""

  def place(path, leaf, spec):
    _check_divides(mesh, f"{part}/{_name(path)}", leaf.shape, spec)
    return NamedSharding(mesh, spec)

  return jax.tree.map_with_path(place, params, param_specs(part, params))


def unstacked_shardings(mesh: Mesh, part: str, params: Any) -> Any:
  """The NamedSharding of every parameter of a part whose layers are unstacked, as in sampling."""

  def place(path, leaf):
    name = _name(path)
    stacked = re.sub(r"layers_\d+/", "layers/", name)
    spec = _spec(part, name, leaf.shape) if stacked == name else P(*_spec(part, stacked, (1, *leaf.shape))[1:])
    _check_divides(mesh, f"{part}/{name}", leaf.shape, spec)
    return NamedSharding(mesh, spec)

  return jax.tree.map_with_path(place, params)


def state_shardings(mesh: Mesh, abstract_state: Any) -> Any:
  """The NamedSharding of every array of a training state (params, ema and opt_state by part; scalars replicated)."""
  shardings = jax.tree.map(lambda _: NamedSharding(mesh, P()), abstract_state)
  params, ema, opt_state = abstract_state.params, abstract_state.ema, abstract_state.opt_state
  return dataclasses.replace(
    shardings,
    params={part: param_shardings(mesh, part, params[part]) for part in params},
    ema={part: param_shardings(mesh, part, ema[part]) for part in ema},
    opt_state={part: _following(mesh, part, opt_state[part], params[part]) for part in opt_state},
  )


def _following(mesh: Mesh, part: str, opt_state: Any, params: Any) -> Any:
  """Shardings of a part's optimizer state: each array lies like the parameter whose path ends its own."""
  shapes = {_name(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(params)}
  leaves = jax.tree.leaves_with_path(param_shardings(mesh, part, params))
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


def _spec(part: str, name: str, shape: tuple[int, ...]) -> P:
  pattern, spec = next((rule for rule in RULES[part] if re.fullmatch(rule[0], name)), (None, None))
  if pattern is None:
    raise SettingsError(f"no sharding rule matches {part}/{name} {shape}; add one to {part.upper()}_RULES")
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
