"""Small open models with random weights, a function of their names: what the golden values in golden/ were made of."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from omniimage.data import text

GOLDEN = Path(__file__).parent / "golden"
ROWS = 1100  # of the table; the vocabulary has 1024 ids, the rest is padding that nobody trained
SHAPE = {
  "hidden_size": 32,
  "num_hidden_layers": 3,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "intermediate_size": 48,
  "vocab_size": ROWS,
  "max_position_embeddings": 128,
  "hidden_act": "silu",
  "eos_token_id": 7,
}
ROPE = {
  "rope_type": "llama3",
  "factor": 8.0,
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
  "original_max_position_embeddings": 64,
}
MODELS = {
  "llama": {
    **SHAPE,
    "model_type": "llama",
    "rms_norm_eps": 1e-5,
    "rope_theta": 500.0,
    "rope_scaling": ROPE,
    "tie_word_embeddings": False,
  },
  "qwen2": {
    **SHAPE,
    "model_type": "qwen2",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
  },
  "qwen3": {
    **SHAPE,
    "model_type": "qwen3",
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
  },
  "gemma3_text": {
    **SHAPE,
    "model_type": "gemma3_text",
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "rope_theta": 500.0,
    "rope_local_base_freq": 20.0,
    "tie_word_embeddings": True,
  },
}
del MODELS["gemma3_text"]["hidden_act"]
LAYER = {  # suffix: (outputs, inputs), of what all have
  "self_attn.q_proj.weight": ("q", "d"),
  "self_attn.k_proj.weight": ("k", "d"),
  "self_attn.v_proj.weight": ("k", "d"),
  "self_attn.o_proj.weight": ("d", "q"),
  "mlp.gate_proj.weight": ("f", "d"),
  "mlp.up_proj.weight": ("f", "d"),
  "mlp.down_proj.weight": ("d", "f"),
  "input_layernorm.weight": ("d",),
  "post_attention_layernorm.weight": ("d",),
}
OWN = {
  "llama": {},
  "qwen2": {"self_attn.q_proj.bias": ("q",), "self_attn.k_proj.bias": ("k",), "self_attn.v_proj.bias": ("k",)},
  "qwen3": {"self_attn.q_norm.weight": ("h",), "self_attn.k_norm.weight": ("h",)},
  "gemma3_text": {
    "self_attn.q_norm.weight": ("h",),
    "self_attn.k_norm.weight": ("h",),
    "pre_feedforward_layernorm.weight": ("d",),
    "post_feedforward_layernorm.weight": ("d",),
  },
}


def shapes(config: Mapping) -> dict[str, tuple[int, ...]]:
  """Of the tensors, as `transformers` names them."""
  head = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
  sizes = {
    "d": config["hidden_size"],
    "f": config["intermediate_size"],
    "h": head,
    "q": head * config["num_attention_heads"],
    "k": head * config["num_key_value_heads"],
  }
  table = (config["vocab_size"], config["hidden_size"])
  found = {"model.embed_tokens.weight": table, "model.norm.weight": (config["hidden_size"],)}
  for i in range(config["num_hidden_layers"]):
    for suffix, axes in {**LAYER, **OWN[config["model_type"]]}.items():
      found[f"model.layers.{i}.{suffix}"] = tuple(sizes[axis] for axis in axes)
  if not config["tie_word_embeddings"]:
    found["lm_head.weight"] = table
  return found


def weights(config: Mapping) -> dict[str, np.ndarray]:
  """Random, and the same on every machine; large enough that no part of the model can be left out unseen."""

  def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    return 1 + 0.3 * noise if "norm" in name else noise * (0.5 if len(shape) == 1 else shape[-1] ** -0.5)

  return {name: draw(name, shape) for name, shape in shapes(config).items()}


def write(folder: Path, kind: str, shards: int = 1, dtype: str = "float32", **changes) -> Path:
  """The folder of a model, as `transformers` would have saved it. With None in place of a value, a key is left out."""
  from safetensors.numpy import save_file

  import ml_dtypes  # noqa: F401  # isort: skip  # makes "bfloat16" a type

  folder.mkdir(parents=True, exist_ok=True)
  config = {key: value for key, value in {**MODELS[kind], **changes}.items() if value is not None}
  tensors = {name: value.astype(np.dtype(dtype)) for name, value in weights({**MODELS[kind], **changes}).items()}
  names = sorted(tensors)
  files = {}
  for shard in range(shards):
    file = f"model-{shard + 1:05}-of-{shards:05}.safetensors" if shards > 1 else "model.safetensors"
    save_file({name: tensors[name] for name in names[shard::shards]}, folder / file, metadata={"format": "pt"})
    files |= dict.fromkeys(names[shard::shards], file)
  if shards > 1:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
  (folder / "config.json").write_text(json.dumps(config))
  (folder / "tokenizer.json").write_bytes(text.BUILTIN.read_bytes())
  return folder


def prompt() -> np.ndarray:
  """Ids (2, 24) of text."""
  return np.random.default_rng(0).integers(0, 1024, (2, 24)).astype(np.int32)
