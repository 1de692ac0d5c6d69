"""GGUF files as llama.cpp's converter writes them, made here of the tiny models."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gguf", reason="the extra `interop`")
pytest.importorskip("safetensors", reason="the extra `interop`")

import gguf
from tokenizers import Tokenizer

from omniimage.data import text
from omniimage.data.text import TextTokenizer
from omniimage.errors import UserError
from omniimage.interop.families import rope_divisors
from omniimage.interop.gguf import convert, pairs_apart
from omniimage.interop.gguf_tokenizer import tokenizer_json
from omniimage.interop.huggingface import LanguageModel
from omniimage.interop.safetensors_files import SafeTensors
from tests.interop import tiny_models

ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3}
LLAMA_3 = {  # all that a GGUF file can be of
  "rope_theta": 500_000.0,
  "rope_scaling": {**tiny_models.ROPE, "original_max_position_embeddings": 8192},
}
TEXT = 1024


def pairs_side_by_side(rows: np.ndarray, heads: int) -> np.ndarray:
  """What llama.cpp's converter does to Llama's queries and keys."""
  return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def write(path: Path, kind: str, quantized: str = "F32", leave_out: str = "", **metadata) -> Path:
  config, writer = {**tiny_models.MODELS[kind], **(LLAMA_3 if kind == "llama" else {})}, gguf.GGUFWriter(path, kind)
  heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
  writer.add_context_length(config["max_position_embeddings"])
  writer.add_embedding_length(config["hidden_size"])
  writer.add_block_count(config["num_hidden_layers"])
  writer.add_feed_forward_length(config["intermediate_size"])
  writer.add_head_count(config["num_attention_heads"])
  writer.add_head_count_kv(config["num_key_value_heads"])
  writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
  writer.add_rope_freq_base(config["rope_theta"])
  if "head_dim" in config:
    writer.add_key_length(config["head_dim"])
  add_tokenizer(writer, **metadata)
  names = gguf.get_tensor_name_map(ARCHITECTURES[kind], config["num_hidden_layers"])
  for name, value in tiny_models.weights(config).items():
    module = name.split(".")[-2]
    if kind == "llama" and module in heads:
      value = pairs_side_by_side(value, heads[module])
    own = names.get_name(name, (".weight", ".bias"))
    kind_of = gguf.GGMLQuantizationType[quantized if value.ndim == 2 and value.shape[1] % 32 == 0 else "F32"]
    if own != leave_out:
      writer.add_tensor(own, gguf.quantize(value, kind_of), raw_dtype=kind_of)
  if kind == "llama":
    head = config["hidden_size"] // config["num_attention_heads"]
    divisors = rope_divisors(
      {"rope_theta": config["rope_theta"], "head_width": head}, tuple(LLAMA_3["rope_scaling"].values())[1:]
    )
    writer.add_tensor("rope_freqs.weight", divisors.astype(np.float32))
  for write_part in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
    write_part()
  writer.close()
  return path


def add_tokenizer(writer, pre="smollm", model="gpt2"):
  builtin = Tokenizer.from_file(str(text.BUILTIN))
  description = json.loads(builtin.to_str())["model"]
  merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in description["merges"]]
  tokens = sorted(description["vocab"], key=description["vocab"].get)
  writer.add_tokenizer_model(model)
  writer.add_tokenizer_pre(pre)
  writer.add_token_list([*tokens, "<|im_end|>"])
  writer.add_token_types([1] * len(tokens) + [3])
  writer.add_token_merges(merges)
  writer.add_eos_token_id(len(tokens))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_a_file_gives_the_tensors_and_the_config_that_it_was_made_of(kind, tmp_path):
  convert(write(tmp_path / "model.gguf", kind), tmp_path / "model")
  folder = tiny_models.write(tmp_path / "theirs", kind, **(LLAMA_3 if kind == "llama" else {}))
  found, expected = LanguageModel(tmp_path / "model"), LanguageModel(folder)
  assert found.settings() == expected.settings()
  ours, theirs = SafeTensors(found.folder), SafeTensors(folder)
  assert set(ours.names) == set(theirs.names)
  for name in theirs.names:
    np.testing.assert_array_equal(ours.read(name), theirs.read(name), err_msg=name)
  assert found.eos(TEXT + 1) == TEXT


def test_a_quantized_tensor_comes_as_the_numbers_that_it_stands_for(tmp_path):
  convert(write(tmp_path / "model.gguf", "qwen3", "Q8_0"), tmp_path / "model")
  found, theirs = SafeTensors(tmp_path / "model"), tiny_models.weights(tiny_models.MODELS["qwen3"])
  for name, value in theirs.items():
    tolerance = np.abs(value).max() / 200 if value.ndim == 2 else 0.0  # 8 bits a number
    np.testing.assert_allclose(found.read(name), value, rtol=0, atol=tolerance, err_msg=name)
  name = "model.layers.0.mlp.up_proj.weight"
  assert np.any(found.read(name) != theirs[name]) and found.dtype(name) == "F32"


def test_the_tokenizer_reads_and_writes_text_and_keeps_control_tokens_out_of_it(tmp_path):
  convert(write(tmp_path / "model.gguf", "qwen3"), tmp_path / "model")
  tokenizer = TextTokenizer.load(str(tmp_path / "model" / "tokenizer.json"))
  for given in ("a red star", "  12345 stars\n\n it's <|im_end|> 猫", ""):
    assert tokenizer.decode(tokenizer.encode(given)) == given
  assert tokenizer.size == TEXT + 1 and tokenizer.unwritten == (TEXT,)
  assert len(tokenizer.encode("12345")) >= 5, "digits one by one, as SmolLM2 has them"


@pytest.mark.parametrize(
  "pre, given, pieces",
  [
    ("smollm", "it's 123 red  stars", ["it", "'s", "Ġ", "1", "2", "3", "Ġred", "Ġ", "Ġstars"]),
    ("llama-bpe", "it's 12345 RED's\n\nx", ["it", "'s", "Ġ", "123", "45", "ĠRED", "'s", "ĊĊ", "x"]),
    ("qwen2", "it's 123.\n", ["it", "'s", "Ġ", "1", "2", "3", ".Ċ"]),
  ],
)
def test_text_is_cut_as_the_family_cuts_it(pre, given, pieces):
  said = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": pre,
    "tokenizer.ggml.tokens": ["a"],
    "tokenizer.ggml.merges": [],
  }
  tokenizer = Tokenizer.from_str(tokenizer_json(said.get, "model.gguf"))
  assert [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(given)] == pieces


@pytest.mark.parametrize(
  "kind, changes, said",
  [
    ("qwen3", {"pre": "deepseek"}, "with the cut 'deepseek', and known are those of 'gpt2' with gpt-2, smollm"),
    ("qwen3", {"model": "llama"}, "its tokenizer is 'llama'"),
    ("qwen3", {"leave_out": "blk.1.ffn_up.weight"}, r"has no tensor blk.1.ffn_up.weight (48, 32)"),
    ("qwen3", {"leave_out": "token_embd.weight"}, "has no tensor token_embd.weight"),
  ],
)
def test_what_the_prior_cannot_be_is_one_line_and_nothing_is_written(kind, changes, said, tmp_path):
  with pytest.raises(UserError) as raised:
    convert(write(tmp_path / "model.gguf", kind, **changes), tmp_path / "model")
  assert said in str(raised.value) and "\n" not in str(raised.value)
  assert not (tmp_path / "model").exists()


def test_files_that_are_no_model_of_a_known_family_say_so(tmp_path):
  (tmp_path / "text.gguf").write_text("no model")
  with pytest.raises(UserError, match=r"text.gguf cannot be read as a GGUF file"):
    convert(tmp_path / "text.gguf", tmp_path / "model")
  writer = gguf.GGUFWriter(tmp_path / "mamba.gguf", "mamba")
  for write_part in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
    write_part()
  writer.close()
  with pytest.raises(UserError, match="model_type='mamba', and the prior can begin with llama"):
    convert(tmp_path / "mamba.gguf", tmp_path / "model")


def test_pairs_come_apart_as_they_were_put_together():
  rows = np.arange(48).reshape(24, 2)
  np.testing.assert_array_equal(pairs_apart(pairs_side_by_side(rows, 3), 3), rows)
