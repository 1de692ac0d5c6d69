"""The tokenizers that are compared: what must be equal is, and what is measured is told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch import config_file
from omniimage.models.quantizers import quantizer_for
from omniimage.models.tokenizer import ImageTokenizer
from omniimage.settings import from_config
from tests.benchmarks.without_flags import load

tokenizers = load("tokenizers")


@pytest.fixture(scope="module")
def compared():
  found = {}
  for name, (file, changes) in tokenizers.TOKENIZERS.items():
    config = config_file.load(file)
    config.update_from_flattened_dict({**tokenizers.CHANGES, **changes})
    found[name] = from_config(config)
  return found


def test_all_have_as_many_tokens_steps_pictures_and_parameters(compared):
  def parameters(settings) -> int:
    t = settings.tokenizer
    module, patch = ImageTokenizer(t, quantizer_for(t)), jnp.zeros((1, t.patch_size, t.patch_size, 3))
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(module.init, jax.random.key(0), patch)))

  first = compared["fsq"]
  assert first.buckets[0].tokens == 64
  for name, settings in compared.items():
    row, other = settings.stages["tokenizer"], first.stages["tokenizer"]
    assert (settings.data, row.steps, row.rows, row.accumulate) == (first.data, other.steps, other.rows, 1), name
    assert abs(parameters(settings) / parameters(first) - 1) < 0.03, name
    assert 0.9 < settings.tokenizer.codes / first.tokenizer.codes <= 1, name


def test_llamagens_recipe_is_its_own(compared):
  recipe, stage = compared["llamagen"], compared["llamagen"].stages["tokenizer"]
  optimizer = recipe.optimizer
  assert (optimizer.muon_rms, optimizer.b1, optimizer.b2, optimizer.clip_norm) == (0, 0.9, 0.95, 1)
  assert (stage.rates["tokenizer"], stage.warmup_steps, optimizer.final_rate, stage.weight("entropy")) == (
    1e-4,
    0,
    1,
    0,
  )
  assert (recipe.tokenizer.quantizer, recipe.tokenizer.code_width, recipe.tokenizer.beta) == ("vq", 8, 0.25)
  assert stage.weight("entropy") == 0


def test_the_table_tells_what_was_measured_and_leaves_out_what_was_not():
  row = {
    "parameters": 1_586_888, "steps": 2000, "seconds": 90.0, "measures": {"PSNR, dB": 23.456}, "codes": 4096,
    "dead": 1024, "perplexity": 1500.4, "perplexity, unseen": 800.0,
  }  # fmt: skip
  head, _, with_all, without = tokenizers.table({"vq": row, "ibq": row | {"measures": {}}}).splitlines()
  assert "PSNR, dB, unseen" in head
  assert with_all == "| vq | 1,586,888 | 2,000 | 23.46 | 4,096 | 75.0 % | 1,024 | 1,500 | 800 | 1.5 |"
  assert without == with_all.replace("vq", "ibq").replace("23.46", "–")


def test_a_measure_is_of_pictures_and_what_came_back():
  black = np.zeros((2, 4, 4, 3), np.uint8)
  decibels = tokenizers.MEASURES["PSNR, dB"](black, black + 51)  # a fifth of the range
  np.testing.assert_allclose(decibels, [13.979, 13.979], atol=1e-3)
