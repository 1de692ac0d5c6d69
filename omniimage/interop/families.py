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
    activation: of its MLPs, as config.json calls it.
  """

  architecture: str
  fixed: Mapping[str, bool]
  activation: str = "silu"


LLAMA = {"qk_norm": False, "qkv_bias": False, "gemma": False}

FAMILIES = {  # by `model_type`
  "llama": Family("LlamaForCausalLM", LLAMA),
  "qwen2": Family("Qwen2ForCausalLM", {**LLAMA, "qkv_bias": True}),  # and Qwen2.5
  "qwen3": Family("Qwen3ForCausalLM", {**LLAMA, "qk_norm": True}),
  "gemma3_text": Family("Gemma3ForCausalLM", {**LLAMA, "qk_norm": True, "gemma": True}, "gelu_pytorch_tanh"),
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
GLOBAL, LOCAL = "full_attention", "sliding_attention"
WITHOUT = (  # what the prior does not have
  "attention_bias", "mlp_bias", "use_sliding_window", "use_bidirectional_attention", "quantization_config",
  "attn_logit_softcapping", "final_logit_softcapping",
)  # fmt: skip


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
  activation = described.get("hidden_activation") or described.get("hidden_act", family.activation)
  if activation != family.activation:
    raise UserError(f"{where}: hidden_act={activation!r}, and the prior's is {family.activation}; take another model")
  heads = _whole(described, "num_attention_heads", where)
  width = _whole(described, "hidden_size", where)
  described = {
    **described,
    "num_key_value_heads": described.get("num_key_value_heads") or heads,
    "head_dim": described.get("head_dim") or width // heads,
  }
  sizes = {ours: _whole(described, theirs, where) for ours, theirs in SIZES.items()}
  if (scalar := described.get("query_pre_attn_scalar", sizes["head_width"])) != sizes["head_width"]:
    raise UserError(f"{where}: query_pre_attn_scalar={scalar}, and the prior's is head_dim={sizes['head_width']}")
  rope = described.get("rope_parameters") or {}
  theta, scaling = _rope(described, rope.get(GLOBAL, rope), 1e6 if family.fixed["gemma"] else 10_000.0, where)
  return {
    **sizes,
    **family.fixed,
    "tied_head": tied,
    "norm_epsilon": _number(described.get("rms_norm_eps", 1e-6), "rms_norm_eps", where),
    "rope_theta": theta,
    "rope_scaling": scaling,
    "local_layers": _local_layers(described, rope.get(LOCAL, {}), sizes["depth"], family, where),
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
  own = {name: getattr(s, name) for name in LLAMA}
  kind = next((kind for kind, family in FAMILIES.items() if family.fixed == own), None)
  if kind is None:
    raise UserError(f"no family of models has layers with {', '.join(f'prior.{k}={v}' for k, v in own.items())}")
  rope = {"rope_type": "default", "rope_theta": s.rope_theta}
  if s.rope_scaling:
    *factors, trained = s.rope_scaling
    rope |= {"rope_type": "llama3", **dict(zip(LLAMA_3, (*factors, int(trained))))}
    positions = max(positions, int(factors[0] * trained))
  return {
    "architectures": [FAMILIES[kind].architecture],
    "model_type": kind,
    **{theirs: getattr(s, ours) for ours, theirs in SIZES.items()},
    "hidden_act": FAMILIES[kind].activation,
    "rms_norm_eps": s.norm_epsilon,
    "rope_parameters": rope,  # of transformers 5
    "rope_theta": s.rope_theta,  # and of those before
    "rope_scaling": rope if s.rope_scaling else None,
    **(_of_gemma(s, rope) if s.gemma else {}),
    "tie_word_embeddings": s.tied_head,
    "vocab_size": rows,
    "max_position_embeddings": positions,
    "bos_token_id": None,
    "eos_token_id": eos,
    "pad_token_id": None,
    "dtype": dtype,
    "torch_dtype": dtype,
  }


def _of_gemma(s: PriorSettings, rope: Mapping[str, Any]) -> dict[str, Any]:
  """What Gemma's config.json says beside that, or in its place."""
  every, theta, window = s.local_layers or (1, s.rope_theta, 1)
  return {
    "hidden_activation": FAMILIES["gemma3_text"].activation,
    "query_pre_attn_scalar": s.head_width,
    "sliding_window": int(window),
    "layer_types": _pattern(int(every), s.depth),
    "rope_parameters": {GLOBAL: rope, LOCAL: {"rope_type": "default", "rope_theta": theta}},
    "rope_local_base_freq": theta,
  }


def _local_layers(
  described: Mapping[str, Any], rope: Mapping[str, Any], depth: int, family: Family, where: str
) -> tuple[float, ...]:
  """(every so many layers a global one, rotary base of the others, how far they see); () where all are global."""
  every = described.get("sliding_window_pattern", 6) if family.fixed["gemma"] else 1
  kinds = described.get("layer_types") or _pattern(every, depth)
  if LOCAL not in kinds:
    every = 1
  else:
    every = kinds.index(GLOBAL) + 1 if GLOBAL in kinds else depth + 1
  if kinds != _pattern(every, depth) or (every > 1 and not family.fixed["gemma"]):
    raise UserError(f"{where}: layer_types={kinds} is a pattern that the prior does not have; take another model")
  if every == 1:
    return ()
  theta = rope.get("rope_theta") or described.get("rope_local_base_freq", 10_000.0)
  return float(every), _number(theta, "rope_local_base_freq", where), float(_whole(described, "sliding_window", where))


def _pattern(every: int, depth: int) -> list[str]:
  return [GLOBAL if (layer + 1) % every == 0 else LOCAL for layer in range(depth)]


def rope_divisors(settings: Mapping[str, Any], scaling: tuple[float, ...]) -> np.ndarray:
  """By how much a scaling divides each rotary frequency (K/2,) of a model."""
  frequencies = settings["rope_theta"] ** (-np.arange(0, settings["head_width"], 2) / settings["head_width"])
  return frequencies / scaled_frequencies(frequencies, *scaling)


def _whole(described: Mapping[str, Any], key: str, where: str) -> int:
  value = described.get(key)
  if type(value) is not int or value < 1:
    raise UserError(f"{where}: {key}={value!r} must be a whole number above 0; is this a language model's config.json?")
  return value


def _rope(
  described: Mapping[str, Any], parameters: Mapping[str, Any], theta: float, where: str
) -> tuple[float, tuple[float, ...]]:
  """(base, scaling) of the rotary frequencies, as transformers 4 or, in `parameters`, 5 has written them; the base is
  `theta` where nothing says so."""
  rope = {"rope_theta": described.get("rope_theta", theta), **(described.get("rope_scaling") or {}), **parameters}
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
