"""Which tensor of a model is which of the prior's parameters, and how each is laid out.

There a matrix is (outputs, inputs) and heads are flat; here it is (inputs, outputs) and heads are an axis. Rotary pairs
are (i, i + K/2) in both.
"""

import dataclasses
import math

import numpy as np

from omniimage.settings import PriorSettings


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor of a layer, or of no layer.

  Attributes:
    name: there, with {} for the layer's number.
    ours: its shape here, of one layer.
    inputs: how many of the first axes here are inputs, which come last there; 0: the same order in both.
  """

  name: str
  ours: tuple[int, ...]
  inputs: int = 0

  @property
  def theirs(self) -> tuple[int, ...]:
    if self.inputs:
      return math.prod(self.ours[self.inputs :]), math.prod(self.ours[: self.inputs])
    return self.ours if self.name.startswith("model.embed") else (math.prod(self.ours),)

  def read(self, theirs: np.ndarray) -> np.ndarray:
    return (theirs.T if self.inputs else theirs).reshape(self.ours)

  def written(self, ours: np.ndarray) -> np.ndarray:
    if self.inputs:
      return np.ascontiguousarray(ours.reshape(self.theirs[::-1]).T)
    return ours.reshape(self.theirs)


def tensors(s: PriorSettings, rows: int) -> dict[str, Tensor]:
  """The tensors of a model whose table has so many rows, by the path of the prior's parameter."""
  d, h, g, k, f = s.width, s.heads, s.kv_heads, s.head_width, s.mlp_width
  layer, attention = "model.layers.{}", "model.layers.{}.self_attn"
  found = {
    "embed/text": Tensor("model.embed_tokens.weight", (rows, d)),
    "norm/scale": Tensor("model.norm.weight", (d,)),
    "layers/attention_norm/scale": Tensor(f"{layer}.input_layernorm.weight", (d,)),
    "layers/mlp_norm/scale": Tensor(f"{layer}.post_attention_layernorm.weight", (d,)),
    "layers/attention/out/kernel": Tensor(f"{attention}.o_proj.weight", (h, k, d), 2),
    "layers/mlp/gate/kernel": Tensor(f"{layer}.mlp.gate_proj.weight", (d, f), 1),
    "layers/mlp/up/kernel": Tensor(f"{layer}.mlp.up_proj.weight", (d, f), 1),
    "layers/mlp/down/kernel": Tensor(f"{layer}.mlp.down_proj.weight", (f, d), 1),
  }
  for ours, theirs, heads in (("query", "q", h), ("key", "k", g), ("value", "v", g)):
    found[f"layers/attention/{ours}/kernel"] = Tensor(f"{attention}.{theirs}_proj.weight", (d, heads, k), 1)
    if s.qkv_bias:
      found[f"layers/attention/{ours}/bias"] = Tensor(f"{attention}.{theirs}_proj.bias", (heads, k))
    if s.qk_norm and ours != "value":
      found[f"layers/attention/{ours}_norm/scale"] = Tensor(f"{attention}.{theirs}_norm.weight", (k,))
  if s.gemma:  # there the norm behind attention has the name that others give to the one before the MLP
    found["layers/attention_out_norm/scale"] = Tensor(f"{layer}.post_attention_layernorm.weight", (d,))
    found["layers/mlp_norm/scale"] = Tensor(f"{layer}.pre_feedforward_layernorm.weight", (d,))
    found["layers/mlp_out_norm/scale"] = Tensor(f"{layer}.post_feedforward_layernorm.weight", (d,))
  if not s.tied_head:
    found["head/text"] = Tensor("lm_head.weight", (d, rows), 1)
  return found


def layers_of(path: str, depth: int) -> range | tuple[None]:
  """The numbers of the layers that have a parameter; None stands for one that is no layer's."""
  return range(depth) if path.startswith("layers/") else (None,)
