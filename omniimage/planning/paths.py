"""Where in the model an instruction comes from, read off the `op_name` that JAX and Flax leave on it.

jit(train_step)/transpose(jvp(Prior))/while/body/checkpoint/rematted_computation/layers/attention/out/dot_general
-> path "prior/layers/attention/out", kind "recomputed"
"""

import re

KINDS = ("forward", "backward", "recomputed", "other")  # other: no part of the model, such as the optimizer's update
UNNAMED = "(compiler)"
CARRIED = "(loop)"  # what a scanned stack reads and writes of the arrays that go from layer to layer

# Components that tell how a module is run, not which.
_STRUCTURE = re.compile(
  r"while|body|cond|closed_call|core_call|eval_jaxpr|checkpoint|rematted_computation|remat\w*|shard_map|pallas_call|"
  r"custom_[jv][jv]p\w*|branch_\d+_fun|.*->.*|.*,.*"
)
_CALL = re.compile(r"(\w+)\((.*)\)")


def module_path(op_name: str) -> tuple[str, str]:
  """The Flax module's path and one of KINDS. A stack's numbered layers, layers_0, layers_1, share one path.

  Outside of modules the path is the innermost jitted function's name.
  """
  op_name = op_name.replace("\\'", "'")
  modules, functions = [], []
  for component in _components(op_name)[:-1]:
    module, function = _unwrap(component)
    if function:
      functions.append(function)
    if module and not _STRUCTURE.fullmatch(module):
      _append(modules, re.sub(r"_\d+$", "", module))
  if modules and functions and functions[-1].startswith("dynamic_"):
    modules.append(CARRIED)
  return "/".join(modules) or (functions or [UNNAMED])[-1], _kind(op_name, bool(modules))


def _kind(op_name: str, in_module: bool) -> str:
  if "rematted_computation" in op_name:
    return "recomputed"
  if "transpose(" in op_name:
    return "backward"
  return "forward" if in_module or "jvp(" in op_name else "other"


def _components(op_name: str) -> list[str]:
  """Splits at the slashes that stand outside of brackets."""
  parts, depth = [""], 0
  for character in op_name:
    depth += (character in "([") - (character in ")]")
    if character == "/" and depth == 0:
      parts.append("")
    else:
      parts[-1] += character
  return parts


def _unwrap(component: str) -> tuple[str, str]:
  """(module, jitted function) that a component names; transformations are taken off: transpose(jvp(Prior)) -> prior.

  Inside a transformation a capital tells a module's class from a function.
  """
  call, wrapped = _CALL.fullmatch(component), False
  while call:
    if call.group(1) in ("jit", "pjit"):
      return "", call.group(2)
    component, wrapped = call.group(2), True
    call = _CALL.fullmatch(component)
  if component[:1].islower() and wrapped:
    return "", component
  return _snake(component), ""


def _snake(name: str) -> str:
  """ImageTokenizer.encode -> image_tokenizer.encode"""
  return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _append(modules: list[str], module: str):
  """A method's scope follows its module's, attention/attention.keys_values, and says nothing new."""
  if not modules or module.split(".")[0] != modules[-1].split(".")[0]:
    modules.append(module)
