"""Open language models: what `transformers` computes with them, the prior computes; what it wrote, we write back."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("safetensors", reason="the extra `interop`")

from omniimage.data.text import TextTokenizer
from omniimage.distributed.mesh import make_mesh
from omniimage.distributed.sharding import param_shardings
from omniimage.errors import UserError
from omniimage.interop.huggingface import LanguageModel, export
from omniimage.interop.safetensors_files import SafeTensors
from omniimage.interop.start import PriorStart, complete
from omniimage.models.attention import AttentionMask, Causal
from omniimage.models.execution import Execution, unstack_layers
from omniimage.models.prior import Prior
from omniimage.settings import from_config
from omniimage.settings.run import MeshSettings
from omniimage.systems.omni import PRIOR_RULES
from omniimage.vocabulary import Vocabulary
from tests import small
from tests.interop import tiny_models

KINDS = tuple(tiny_models.MODELS)
CODES = 64  # of small.config
TEXT = 1024
SCANNED = Execution()


def started(folder, **changes):
  """Settings and the prior's parameters of a run that begins with the model in a folder."""
  config = complete(small.config(**{"prior.init": f"hf:{folder}", **changes}))
  settings, vocabulary = from_config(config), Vocabulary(TEXT, CODES)
  start = PriorStart(settings.prior, vocabulary)  # checks, before anything is made
  return settings.prior, start.load(fresh(settings.prior, vocabulary))


def fresh(s, vocabulary):
  tokens, positions = jnp.zeros((1, 2), jnp.int32), jnp.zeros((1, 2, 3), jnp.int32)
  init = lambda: Prior(s, vocabulary).init(jax.random.key(0), tokens, positions, method="init_parameters")  # noqa: E731
  return jax.jit(init)()["params"]


@functools.partial(jax.jit, static_argnums=(0, 3))
def hidden(s, params, ids, execution=SCANNED):
  positions = jnp.broadcast_to(jnp.arange(ids.shape[1])[None, :, None], (*ids.shape, 3))
  prior = Prior(s, Vocabulary(TEXT, CODES), execution)
  return prior.apply({"params": params}, ids, positions, AttentionMask(Causal()))[0]


def logits(s, params, ids):
  """(B, L, V) over text and specials."""
  prior = Prior(s, Vocabulary(TEXT, CODES))
  return prior.apply({"params": params}, hidden(s, params, ids), "text", method="logits")


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_greedy_text_are_those_of_transformers(kind, tmp_path):
  """By values that `transformers` has computed of the same weights; golden/make.py makes them."""
  golden = np.load(tiny_models.GOLDEN / f"{kind}.npz")
  s, params = started(tiny_models.write(tmp_path, kind))
  run = jax.jit(lambda ids: logits(s, params, ids)[..., :TEXT])
  prompt, greedy = tiny_models.prompt(), golden["greedy"].astype(np.int32)
  whole = np.concatenate([prompt, greedy], axis=1)
  found = np.asarray(run(whole))
  length = prompt.shape[1]
  np.testing.assert_allclose(found[:, :length, ::8], golden["logits"][..., : TEXT // 8], atol=1e-4)
  # Each of the likeliest ids, given those before it: the same as writing them one by one.
  np.testing.assert_array_equal(found[:, length - 1 : -1].argmax(-1), greedy)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_itself_agrees_with_the_golden_values_and_reads_what_is_written_back(kind, tmp_path):
  torch = pytest.importorskip("torch", reason="the extra `parity`")
  transformers = pytest.importorskip("transformers", reason="the extra `parity`")
  s, params = started(tiny_models.write(tmp_path / "theirs", kind))
  export(params, s, Vocabulary(TEXT, CODES), 128, b"{}", tmp_path / "back")
  prompt, seen = torch.from_numpy(tiny_models.prompt().astype(np.int64)), {}
  for name in ("theirs", "back"):
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype=torch.float32).eval()
    with torch.no_grad():
      seen[name] = model(prompt).logits.numpy()[..., :TEXT]
  np.testing.assert_array_equal(seen["back"], seen["theirs"])
  golden = np.load(tiny_models.GOLDEN / f"{kind}.npz")["logits"]
  np.testing.assert_allclose(seen["theirs"][..., ::8], golden[..., : TEXT // 8], atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_is_read_and_written_back_is_the_same_to_the_bit(kind, dtype, tmp_path):
  folder = tiny_models.write(tmp_path / "theirs", kind, shards=3, dtype=dtype)
  s, params = started(folder)
  back = tmp_path / "back"
  export(params, s, Vocabulary(TEXT, CODES), 128, (folder / "tokenizer.json").read_bytes(), back, dtype)
  before, after = SafeTensors(folder), SafeTensors(back)
  assert set(before.names) == set(after.names)
  for name in before.names:
    text = slice(TEXT) if name in ("model.embed_tokens.weight", "lm_head.weight") else slice(None)
    np.testing.assert_array_equal(after.read(name)[text], before.read(name)[text], err_msg=name)
    assert after.dtype(name) == before.dtype(name)
  again = LanguageModel(back)
  assert again.settings() == LanguageModel(folder).settings()
  assert again.described["eos_token_id"] == Vocabulary(TEXT, CODES).eos
  assert TextTokenizer.load(str(again.tokenizer)).size == TEXT


def test_a_large_model_is_written_to_several_files_that_are_read_as_one(tmp_path, monkeypatch):
  monkeypatch.setattr("omniimage.interop.safetensors_files.MOST_BYTES", 50_000)
  s, params = started(tiny_models.write(tmp_path / "theirs", "llama"))
  export(params, s, Vocabulary(TEXT, CODES), 128, b"{}", tmp_path / "back")
  files = sorted((tmp_path / "back").glob("*.safetensors"))
  assert len(files) > 3 and not (tmp_path / "back" / "model.safetensors").exists()
  again, first = SafeTensors(tmp_path / "back"), SafeTensors(tmp_path / "theirs")
  assert set(again.names) == set(first.names)
  name = "model.layers.2.mlp.down_proj.weight"
  np.testing.assert_array_equal(again.read(name), first.read(name))


def test_specials_and_codes_are_fresh_rows_around_the_mean_of_the_models_own(tmp_path):
  _, params = started(tiny_models.write(tmp_path, "llama"), **{"prior.text_rows": 2000})
  v = Vocabulary(TEXT, CODES)
  theirs = tiny_models.weights(tiny_models.MODELS["llama"])
  for table, axis, name in (("embed", 0, "model.embed_tokens.weight"), ("head", 1, "lm_head.weight")):
    text, image = (np.moveaxis(np.asarray(params[table][kind]), axis, 0) for kind in ("text", "image"))
    assert len(text) == 2048
    np.testing.assert_array_equal(text[:TEXT], theirs[name][:TEXT])
    np.testing.assert_array_equal(text[v.eos], theirs[name][7], err_msg="<eos> is what ended the model's texts")
    padding = theirs[name][TEXT:]
    assert not np.any(np.all(text[TEXT : len(theirs[name]), None] == padding, axis=-1)), "untrained rows are left out"
    own = theirs[name][:TEXT]
    mean, spread = own.mean(axis=0), own.std(axis=0).mean()
    for rows, share in ((text[v.eos + 1 : v.codes], 0.1), (image[:CODES], 1.0)):
      np.testing.assert_allclose(np.sqrt(np.mean(np.square(rows - mean))), share * spread, rtol=0.1)
      assert len(np.unique(rows[:, 0])) == len(rows)


def test_a_special_is_not_likely_before_it_is_trained(tmp_path):
  """Whatever the model's logits are on average: here all of its own are far below zero."""
  folder = tiny_models.write(tmp_path, "llama")
  _resave(folder, lambda tensors: tensors.update({"lm_head.weight": tensors["lm_head.weight"] - 0.5}))
  s, params = started(folder)
  states = np.abs(np.random.default_rng(0).standard_normal((64, 32), np.float32))
  found = Prior(s, Vocabulary(TEXT, CODES)).apply({"params": params}, states, "text", method="logits")
  own, specials = found[..., :TEXT], found[..., Vocabulary(TEXT, CODES).image :]
  assert float(own.max()) < 0 and np.all(specials.max(-1) < own.max(-1))


def test_a_model_lies_on_the_mesh_as_fresh_parameters_do_and_each_tensor_is_read_once(tmp_path, monkeypatch):
  folder = tiny_models.write(tmp_path, "qwen3", shards=2, dtype="bfloat16")
  s, alone = started(folder)
  mesh, v = make_mesh(MeshSettings(data=2, fsdp=2, tensor=2, sequence=1)), Vocabulary(TEXT, CODES)
  shardings = param_shardings(mesh, PRIOR_RULES, "prior", alone)
  reads, read = [], SafeTensors.read
  monkeypatch.setattr(SafeTensors, "read", lambda self, name: reads.append(name) or read(self, name))
  with jax.set_mesh(mesh):
    spread = PriorStart(s, v).load(jax.device_put(fresh(s, v), shardings))
  jax.tree.map(lambda x, sharding: np.testing.assert_equal(x.sharding.is_equivalent_to(sharding, x.ndim), True),
               spread, shardings)  # fmt: skip
  assert sorted(reads) == sorted(SafeTensors(folder).names), "whatever the number of devices"
  own = lambda params: {**params, "embed": params["embed"]["text"][:TEXT], "head": params["head"]["text"][:, :TEXT]}  # noqa: E731
  jax.tree.map(np.testing.assert_array_equal, own(spread), own(alone))


def test_the_layers_unrolled_compute_the_same_where_some_are_local(tmp_path):
  s, params = started(tiny_models.write(tmp_path, "gemma3_text"))
  ids = tiny_models.prompt()[:, :8]
  unrolled = hidden(s, unstack_layers(params), ids, Execution(scan=False))
  np.testing.assert_allclose(unrolled, hidden(s, params, ids), rtol=1e-4, atol=1e-4)


def refused(folder, **changes) -> str:
  with pytest.raises(UserError) as raised:
    started(folder, **changes)
  assert "\n" not in str(raised.value)
  return str(raised.value)


@pytest.mark.parametrize(
  "kind, changes, said",
  [
    ("llama", {"model_type": "mamba"}, "model_type='mamba', and the prior can begin with llama, qwen2, qwen3"),
    ("llama", {"model_type": None}, "model_type=None"),
    ("llama", {"attention_bias": True}, "attention_bias=True is something the prior does not have"),
    ("llama", {"quantization_config": {"bits": 4}}, "quantization_config={'bits': 4} is something the prior"),
    ("llama", {"hidden_act": "gelu"}, "hidden_act='gelu', and the prior's is silu"),
    ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type='yarn'"),
    ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 4.0}}, "rope_type='llama3', without low_freq_factor"),
    ("qwen2", {"use_sliding_window": True}, "use_sliding_window=True"),
    ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "is a pattern that the prior does not have"),
    ("gemma3_text", {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, "is a pattern that"),
    ("gemma3_text", {"query_pre_attn_scalar": 168}, "query_pre_attn_scalar=168, and the prior's is head_dim=16"),
    ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping=30.0 is something the prior"),
    ("gemma3_text", {"sliding_window": 32}, "data.sequence_length=64 is more than the 32 positions"),
    ("llama", {"hidden_size": "wide"}, "hidden_size='wide' must be a whole number"),
    ("llama", {"rms_norm_eps": "small"}, "rms_norm_eps='small' must be a number"),
    ("llama", {"num_hidden_layers": 4}, "has no tensor model.layers.3."),
    ("llama", {"num_hidden_layers": 2}, "the tensor model.layers.2."),
    (
      "llama",
      {"intermediate_size": 64},
      "model.layers.0.mlp.gate_proj.weight is (48, 32); its config.json says (64, 32)",
    ),
    ("llama", {"vocab_size": 1200}, "model.embed_tokens.weight is (1100, 32); its config.json says (1200, 32)"),
  ],
)
def test_a_config_that_the_prior_cannot_be_is_one_line_that_names_the_key_or_tensor(kind, changes, said, tmp_path):
  folder = tiny_models.write(tmp_path, kind)
  config = {**json.loads((folder / "config.json").read_text()), **changes}
  (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
  assert said in refused(folder)


def _resave(folder, change):
  from safetensors.numpy import load_file, save_file

  tensors = load_file(folder / "model.safetensors")
  change(tensors)
  save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
  "change, said",
  [
    (lambda t: t.pop("model.norm.weight"), "has no tensor model.norm.weight (32,)"),
    (
      lambda t: t.update({"model.layers.1.self_attn.o_proj.bias": np.zeros(32, np.float32)}),
      "the tensor model.layers.1.self_attn.o_proj.bias is of something the prior does not have",
    ),
    (
      lambda t: t.update({"model.norm.weight": np.zeros(32, np.int8)}),
      "the tensor model.norm.weight is I8; expected F32, BF16, F16",
    ),
    (
      lambda t: t.update({"model.layers.0.self_attn.k_proj.weight": np.zeros((32, 32), np.float32)}),
      "model.layers.0.self_attn.k_proj.weight is (32, 32); its config.json says (16, 32)",
    ),
  ],
)
def test_a_tensor_that_does_not_fit_is_named_with_its_shape(change, said, tmp_path):
  folder = tiny_models.write(tmp_path, "llama")
  _resave(folder, change)
  assert said in refused(folder)


def test_an_unused_head_and_computed_frequencies_are_no_fault(tmp_path):
  folder = tiny_models.write(tmp_path, "qwen2")
  extra = {
    "lm_head.weight": np.ones((tiny_models.ROWS, 32), np.float32),
    "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32),
  }
  _resave(folder, lambda tensors: tensors.update(extra))
  s, params = started(folder)
  assert s.tied_head and "head" not in params


def test_folders_that_are_no_model_say_so(tmp_path):
  assert "is not a folder" in refused(tmp_path / "nowhere")
  (tmp_path / "empty").mkdir()
  assert "config.json cannot be read" in refused(tmp_path / "empty")
  folder = tiny_models.write(tmp_path / "broken", "llama")
  (folder / "model.safetensors").write_bytes(b"\x00" * 20)
  assert "model.safetensors cannot be read" in refused(folder)
  (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
  assert "has no model.safetensors" in refused(folder)
  folder = tiny_models.write(tmp_path / "cut", "llama", shards=2)
  (folder / "model-00002-of-00002.safetensors").unlink()
  assert "lacks model-00002-of-00002.safetensors" in refused(folder)
  index = folder / "model.safetensors.index.json"
  index.write_text(json.dumps({"weight_map": {"model.norm.weight": "../other/secret.safetensors"}}))
  assert "must name files of its folder" in refused(folder)


def test_a_vocabulary_with_more_ids_than_the_model_has_rows_is_refused(tmp_path):
  folder = tiny_models.write(tmp_path, "llama", vocab_size=1000)
  said = refused(folder)
  assert "its table has 1000 rows, and the text vocabulary 1024 ids; set data.vocabulary" in said


def test_what_is_there_is_not_written_over(tmp_path):
  s, params = started(tiny_models.write(tmp_path / "theirs", "llama"))
  with pytest.raises(UserError, match="is there already"):
    export(params, s, Vocabulary(TEXT, CODES), 128, b"{}", tmp_path / "theirs")
