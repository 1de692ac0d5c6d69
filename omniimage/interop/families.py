"""The families of open language models that the prior can be: config.json ↔ its settings.

A family is a row of `FAMILIES`. What a model has beyond that (a bias on the output, attention in a window, another
activation) would be lost without a word, so it is refused by name.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from omniimage.errors import UserError
from omniimage.models.layers import scaled_frequencies
from omniimage.settings import PriorSettings


@dataclasses.dataclass(frozen=True)
class Family:
  """A family by what tells its models from those of others.

  Attributes:
    architecture: the class of `transformers` that reads it.
    fixed: settings of the prior that all its models share.
  """

  architecture: str
  fixed: Mapping[str, bool]


FAMILIES = {  # by `model_type`
  "llama": Family("LlamaForCausalLM", {"qk_norm": False, "qkv_bias": False}),
  "qwen2": Family("Qwen2ForCausalLM", {"qk_norm": False, "qkv_bias": True}),  # and Qwen2.5
  "qwen3": Family("Qwen3ForCausalLM", {"qk_norm": True, "qkv_bias": False}),
}

SIZES = {  # the prior's settings that are plain numbers there
  "width": "hidden_size",
  "depth": "num_hidden_layers",
  "heads": "num_attention_heads",
  "kv_heads": "num_key_value_heads",
  "head_width": "head_dim",
  "mlp_width": "intermediate_size",
}
LLAMA_3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
WITHOUT = ("attention_bias", "mlp_bias", "use_sliding_window", "quantization_config")  # what the prior does not have


def prior_settings(described: Mapping[str, Any], tied: bool, where: str) -> dict[str, Any]:
  """The prior's settings, all but `text_rows` and `init`, of a model.

  Args:
    described: its config.json.
    tied: whether its head is its table of embeddings.
    where: what errors call the file. They are UserErrors.
  """
  family = family_of(described, where)
  for key in WITHOUT:
    if described.get(key):
      raise UserError(f"{where}: {key}={described[key]!r} is something the prior does not have; take another model")
  if others := sorted(set(described.get("layer_types") or ()) - {"full_attention"}):
    raise UserError(f"{where}: layer_types has {others[0]!r}, and the prior sees everything; take another model")
  if (activation := described.get("hidden_act", "silu")) != "silu":
    raise UserError(f"{where}: hidden_act={activation!r}, and the prior's is silu; take another model")
  heads = _whole(described, "num_attention_heads", where)
  width = _whole(described, "hidden_size", where)
  described = {
    **described,
    "num_key_value_heads": described.get("num_key_value_heads") or heads,
    "head_dim": described.get("head_dim") or width // heads,
  }
  sizes = {ours: _whole(described, theirs, where) for ours, theirs in SIZES.items()}
  theta, scaling = _rope(described, where)
  return {
    **sizes,
    **family.fixed,
    "tied_head": tied,
    "norm_epsilon": _number(described.get("rms_norm_eps", 1e-6), "rms_norm_eps", where),
    "rope_theta": theta,
    "rope_scaling": scaling,
  }


def family_of(described: Mapping[str, Any], where: str) -> Family:
  kind = described.get("model_type")
  if kind not in FAMILIES:
    raise UserError(f"{where}: model_type={kind!r}, and the prior can begin with {', '.join(FAMILIES)}")
  return FAMILIES[kind]


def description(s: PriorSettings, rows: int, eos: int, positions: int, dtype: str) -> dict[str, Any]:
  """The config.json of the prior's language part; the inverse of `prior_settings`. UserError if no family is like it.

  Args:
    rows: of its table.
    eos: the id that ends a text.
    positions: the longest text it is meant for.
    dtype: of its tensors.
  """
  own = {"qk_norm": s.qk_norm, "qkv_bias": s.qkv_bias}
  kind = next((kind for kind, family in FAMILIES.items() if family.fixed == own), None)
  if kind is None:
    raise UserError(f"prior.qk_norm={s.qk_norm} with prior.qkv_bias={s.qkv_bias}: no family of models has such layers")
  rope = {"rope_type": "default", "rope_theta": s.rope_theta}
  if s.rope_scaling:
    *factors, trained = s.rope_scaling
    rope |= {"rope_type": "llama3", **dict(zip(LLAMA_3, (*factors, int(trained))))}
    positions = max(positions, int(factors[0] * trained))
  return {
    "architectures": [FAMILIES[kind].architecture],
    "model_type": kind,
    **{theirs: getattr(s, ours) for ours, theirs in SIZES.items()},
    "hidden_act": "silu",
    "rms_norm_eps": s.norm_epsilon,
    "rope_parameters": rope,  # of transformers 5
    "rope_theta": s.rope_theta,  # and of those before
    "rope_scaling": rope if s.rope_scaling else None,
    "tie_word_embeddings": s.tied_head,
    "vocab_size": rows,
    "max_position_embeddings": positions,
    "bos_token_id": None,
    "eos_token_id": eos,
    "dtype": dtype,
    "torch_dtype": dtype,
  }


def rope_divisors(settings: Mapping[str, Any], scaling: tuple[float, ...]) -> np.ndarray:
  """By how much a scaling divides each rotary frequency (K/2,) of a model."""
  frequencies = settings["rope_theta"] ** (-np.arange(0, settings["head_width"], 2) / settings["head_width"])
  return frequencies / scaled_frequencies(frequencies, *scaling)


def _whole(described: Mapping[str, Any], key: str, where: str) -> int:
  value = described.get(key)
  if type(value) is not int or value < 1:
    raise UserError(f"{where}: {key}={value!r} must be a whole number above 0; is this a language model's config.json?")
  return value


def _rope(described: Mapping[str, Any], where: str) -> tuple[float, tuple[float, ...]]:
  """(base, scaling) of the rotary frequencies, as transformers 4 or 5 has written them."""
  rope = {
    "rope_theta": described.get("rope_theta", 10_000.0),
    **(described.get("rope_scaling") or {}),
    **(described.get("rope_parameters") or {}),
  }
  kind = rope.get("rope_type", rope.get("type", "default"))
  missing = [key for key in LLAMA_3 if kind == "llama3" and key not in rope]
  if kind not in ("default", "llama3") or missing:
    given = f"without {missing[0]}" if missing else "another scaling of rotary positions"
    raise UserError(f"{where}: rope_type={kind!r}, {given}; the prior has none, or Llama 3's ('llama3')")
  used = LLAMA_3 if kind == "llama3" else ()
  return _number(rope["rope_theta"], "rope_theta", where), tuple(_number(rope[key], key, where) for key in used)


def _number(value: Any, key: str, where: str) -> float:
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    raise UserError(f"{where}: {key}={value!r} must be a number")
  return float(value)
