"""A run whose prior begins with an open language model."""

import json
import shutil

import jax
import numpy as np
import pytest

pytest.importorskip("safetensors", reason="the extra `interop`")

from omniimage.data.text import BUILTIN, TextTokenizer
from omniimage.errors import UserError
from omniimage.interop.start import complete
from omniimage.models.omni import Omni
from omniimage.sampling.grammar import Grammar
from omniimage.settings import from_config
from omniimage.training import loop
from omniimage.workdir import Workdir, load_run
from tests import small
from tests.interop import tiny_models

THEIRS = tiny_models.weights(tiny_models.MODELS["qwen3"])["model.layers.1.mlp.up_proj.weight"].T


@pytest.fixture
def folder(tmp_path):
  return tiny_models.write(tmp_path / "model", "qwen3")


def config(folder, **changes):
  """The prior alone on text, one step."""
  changes = {
    "prior.init": f"hf:{folder}",
    "schedule": ("prior",),
    "stages.prior.weights.image": 0.0,
    "stages.prior.weights.text": 1.0,
    "stages.prior.steps": 1,
    "run.checkpoint_every": 1,
    "run.sample_every": 0,
    "decoder.depth": 1,
    **changes,
  }
  return small.config(**changes)


def state_at_start(config, path, save=False):
  trainer = loop.Trainer.prepare(config, Workdir(path))
  try:
    state = trainer.restore_or_init()
    if save:
      trainer._save(state)
    return state
  finally:
    trainer.close()
    trainer.workdir.lock.close()


def buffers(tree):
  return {shard.data.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree) for shard in leaf.addressable_shards}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
  """(The model's folder, the config, the workdir of a run that has saved its beginning, its state.)"""
  path = tmp_path_factory.mktemp("begun")
  folder = tiny_models.write(path / "model", "qwen3")
  given = config(folder, **{"prior.input_images": "both", "prior.grid_embedding": True})
  return folder, given, path / "run", state_at_start(given, path / "run", save=True)


def test_a_run_begins_with_the_model_and_its_averages_do_too(begun):
  folder, given, workdir, state = begun
  for tree in (state.params, state.ema):
    np.testing.assert_array_equal(tree["prior"]["layers"]["mlp"]["up"]["kernel"][1], THEIRS)
  for added in ("adapter", "grid"):
    assert np.std(state.params["prior"][added]["out"]["kernel"]) > 0, "the model has none: it stays as it was made"
  assert not buffers(state.params["prior"]) & buffers(state.ema["prior"]), "the step donates both"
  kept = json.loads((workdir / "config.json").read_text())
  assert kept["prior"]["width"] == 32 and kept["prior"]["head_width"] == 16 and kept["prior"]["qk_norm"] is True
  assert kept["data"]["vocabulary"] == str(folder / "tokenizer.json")
  assert given.prior.mlp_width == 64 and given.data.vocabulary == "builtin", "the caller's config stays as it was"


def test_a_run_goes_on_and_draws_when_the_models_files_are_gone(begun):
  folder, given, workdir, _ = begun
  folder.rename(folder.with_name("gone"))
  state, run = state_at_start(given, workdir), load_run(workdir)
  asked = complete(config(folder, **{"prior.input_images": "codes"}), lambda: run.settings).prior.input_images
  assert asked == "codes" != run.settings.prior.input_images, "it is ours to choose, and refused as any other change"
  assert run.settings.prior.norm_epsilon == 1e-6 and run.text_tokenizer.size == 1024
  for params in (state.params, run.params):
    np.testing.assert_array_equal(params["prior"]["layers"]["mlp"]["up"]["kernel"][1], THEIRS)


def test_what_cannot_be_is_said_before_anything_is_compiled(folder, tmp_path, monkeypatch):
  monkeypatch.setattr(jax, "jit", lambda *args, **kwargs: pytest.fail("compiled"))
  theirs = json.loads((folder / "config.json").read_text())
  (folder / "config.json").write_text(json.dumps({**theirs, "num_hidden_layers": 4}))
  with pytest.raises(UserError, match=r"has no tensor model.layers.3."):
    state_at_start(config(folder), tmp_path / "run")
  with pytest.raises(UserError, match="nowhere is not a folder"):
    state_at_start(config(folder / "nowhere"), tmp_path / "other")


@pytest.mark.parametrize("init", ["llama", "gguf:model.gguf"])
def test_an_init_that_is_no_model_is_one_line(init):
  with pytest.raises(UserError, match=r"prior.init=.* is no model to begin with; give hf:FOLDER"):
    from_config(complete(small.config(**{"prior.init": init})))


def test_a_vocabulary_that_is_given_stays(folder, tmp_path):
  own = tmp_path / "own.json"
  shutil.copy(folder / "tokenizer.json", own)
  assert complete(config(folder, **{"data.vocabulary": str(own)})).data.vocabulary == str(own)


def with_control_tokens(path):
  """A vocabulary as released models have them: control tokens, and a gap in its ids."""
  description = json.loads(BUILTIN.read_text(encoding="utf-8"))
  added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
  description["added_tokens"] = [
    {**added, "id": 1024, "content": "<|end|>"},
    {**added, "id": 1026, "content": "<think>", "special": False},
  ]
  path.write_text(json.dumps(description))
  return TextTokenizer.load(str(path))


def test_an_id_that_was_never_trained_is_never_sampled(tmp_path):
  tokenizer = with_control_tokens(tmp_path / "tokenizer.json")
  assert tokenizer.size == 1027 and tokenizer.unwritten == (1024, 1025, 1026)
  vocabulary = Omni(small.settings(), tokenizer.size, unwritten=tokenizer.unwritten).vocabulary
  allowed = np.asarray(Grammar.start(1).allowed(vocabulary))[0]
  assert allowed[:1024].all() and not allowed[1024:1027].any() and allowed[vocabulary.eos]
  assert TextTokenizer.load().unwritten == ()
