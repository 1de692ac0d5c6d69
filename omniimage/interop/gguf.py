"""GGUF files, the form of llama.cpp, dequantized into a folder of Hugging Face's form, which a run can begin with.

One file holds a model with its sizes and its tokenizer. The package `gguf` reads and dequantizes it, one tensor at a
time.
"""

from pathlib import Path
from typing import Any

import numpy as np

from omniimage.errors import UserError
from omniimage.files import write_whole
from omniimage.interop import families
from omniimage.interop.gguf_tokenizer import tokenizer_json
from omniimage.interop.huggingface import CONFIG, TOKENIZER, require_new
from omniimage.interop.safetensors_files import write, write_json
from omniimage.interop.tensors import Tensor, layers_of, tensors
from omniimage.settings import PriorSettings

KEYS = {  # of config.json, and of the file's metadata behind the name of its architecture
  "hidden_size": "embedding_length",
  "num_hidden_layers": "block_count",
  "num_attention_heads": "attention.head_count",
  "num_key_value_heads": "attention.head_count_kv",
  "head_dim": "attention.key_length",
  "intermediate_size": "feed_forward_length",
  "rms_norm_eps": "attention.layer_norm_rms_epsilon",
  "rope_theta": "rope.freq_base",
  "max_position_embeddings": "context_length",
}
TABLE, HEAD, FREQUENCIES = "token_embd.weight", "output.weight", "rope_freqs.weight"
INTERLEAVED = ("llama",)  # families whose queries and keys llama.cpp keeps with the two of a rotary pair side by side
LLAMA_3_TURNS = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


class GgufModel:
  """A model's file. UserErrors name it, and the key or tensor that is wrong."""

  def __init__(self, path: Path):
    gguf, self.path = library(), path
    try:
      self._reader = gguf.GGUFReader(path)
    except (OSError, ValueError, KeyError, IndexError) as error:
      raise UserError(f"{path} cannot be read as a GGUF file: {error}; download it again") from None
    self.architecture = self.said("general.architecture")
    families.family_of({"model_type": self.architecture}, str(path))
    if (self.said("split.count") or 1) > 1:
      raise UserError(f"{path} is one of {self.said('split.count')} files of a model; merge them with llama-gguf-split")
    self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
    if TABLE not in self._tensors:
      raise UserError(f"{path} has no tensor {TABLE}; is it a language model?")

  def said(self, key: str) -> Any:
    """A value of the metadata, None where there is none."""
    field = self._reader.get_field(key)
    return None if field is None else field.contents()

  def shape(self, name: str) -> tuple[int, ...]:
    return tuple(int(n) for n in reversed(self._tensors[name].shape))

  def read(self, name: str) -> np.ndarray:
    """A tensor, dequantized, in float32."""
    tensor = self._tensors[name]
    return library().dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(self.shape(name))

  def settings(self) -> PriorSettings:
    """The prior's."""
    described = {"model_type": self.architecture, "tie_word_embeddings": HEAD not in self._tensors}
    for theirs, key in KEYS.items():
      value = self.said(f"{self.architecture}.{key}")
      if value is not None:
        # They are kept in float32: 1e-5 is 9.99999974e-06 there.
        described[theirs] = float(str(np.float32(value))) if isinstance(value, float) else value
    if (kind := self.said(f"{self.architecture}.rope.scaling.type")) not in (None, "none"):
      described["rope_scaling"] = {"rope_type": kind}
    settings = families.prior_settings(described, HEAD not in self._tensors, str(self.path))
    if FREQUENCIES in self._tensors:
      settings["rope_scaling"] = self._scaling(settings)
    return PriorSettings(**settings, input_images="codes", grid_embedding=False, text_rows=0, init="")

  def places(self, s: PriorSettings) -> dict[str, tuple[str, Tensor]]:
    """By the name that `transformers` has for it, each tensor's name here. UserError where one is missing or left."""
    gguf = library()
    architecture = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == self.architecture)
    names, found = gguf.get_tensor_name_map(architecture, s.depth), {}
    for path, tensor in tensors(s, self.shape(TABLE)[0]).items():
      for layer in layers_of(path, s.depth):
        theirs = tensor.name.format(layer)
        own = names.get_name(theirs, (".weight", ".bias"))
        if own not in self._tensors:
          raise UserError(f"{self.path} has no tensor {own} {tensor.theirs}, which its metadata makes us expect")
        if self.shape(own) != tensor.theirs:
          raise UserError(f"{self.path}: the tensor {own} is {self.shape(own)}; its metadata says {tensor.theirs}")
        found[theirs] = own, tensor
    read = {own for own, _ in found.values()} | {FREQUENCIES}
    if unknown := sorted(set(self._tensors) - read):
      raise UserError(f"{self.path}: the tensor {unknown[0]} is of something the prior does not have")
    return found

  def _scaling(self, settings: dict[str, Any]) -> tuple[float, ...]:
    """Llama 3's scaling, of which the file keeps only by how much each frequency is divided."""
    divisors = self.read(FREQUENCIES)
    scaling = (float(divisors.max()), *LLAMA_3_TURNS.values())
    if not np.allclose(divisors, families.rope_divisors(settings, scaling), rtol=1e-4):
      raise UserError(
        f"{self.path}: {FREQUENCIES} are not those of Llama 3; take the model's safetensors files instead"
      )
    return scaling


def convert(path: Path, out: Path, dtype: str = "float32"):
  """Writes a GGUF file as a folder that a run can begin with, and that `transformers` loads.

  Args:
    out: a folder that is empty, or not there yet.
    dtype: of the tensors, of `huggingface.DTYPES`; float32 keeps all that was quantized.
  """
  model = GgufModel(path)
  s, eos = model.settings(), model.said("tokenizer.ggml.eos_token_id")
  places, tokenizer = model.places(s), tokenizer_json(model.said, str(path))
  positions = model.said(f"{model.architecture}.{KEYS['max_position_embeddings']}") or 2048
  described = families.description(s, model.shape(TABLE)[0], eos, positions, dtype)
  require_new(out)

  def value(name: str) -> np.ndarray:
    own, _ = places[name]
    tensor = model.read(own)
    heads = {"q_proj": s.heads, "k_proj": s.kv_heads}.get(name.split(".")[-2])
    return pairs_apart(tensor, heads) if heads and model.architecture in INTERLEAVED else tensor

  out.mkdir(parents=True, exist_ok=True)
  write(out, {name: tensor.theirs for name, (_, tensor) in places.items()}, value, np.dtype(dtype))
  write_whole(out / TOKENIZER, tokenizer.encode())
  write_json(out / CONFIG, described)  # last: a folder without it is no model


def pairs_apart(rows: np.ndarray, heads: int) -> np.ndarray:
  """Rows (H·K, D) of heads whose rotary pairs are (2i, 2i + 1), as of heads whose pairs are (i, i + K/2)."""
  return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def library():
  """The `gguf` package, which is an extra."""
  try:
    import gguf
  except ImportError:
    raise UserError("GGUF files need the package gguf: pip install 'omniimage[interop]'") from None
  return gguf
