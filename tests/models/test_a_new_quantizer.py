"""A quantizer is one file and one row: this one, with a learnt codebook as VQ-VAE (van den Oord et al. 2017) has it."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from omniimage.distributed.sharding import param_specs
from omniimage.models.quantizers import QUANTIZERS, Quantized
from omniimage.settings import TokenizerSettings
from omniimage.systems.omni import TOKENIZER_RULES
from omniimage.training.optimizer import make_optimizer
from omniimage.training.state import enter_stage, fresh_state
from omniimage.training.step import make_train_step
from tests import small


class Nearest(nn.Module):
  codes: int
  channels: int

  def setup(self):
    self.codebook = self.param("codebook", nn.initializers.normal(0.5), (self.codes, self.channels))

  def __call__(self, z):
    codes = jnp.argmin(jnp.sum(jnp.square(z[..., None, :] - self.codebook), axis=-1), axis=-1).astype(jnp.int32)
    chosen = self.features(codes)
    commitment = jnp.mean(jnp.square(z - jax.lax.stop_gradient(chosen)), axis=-1)
    return Quantized(chosen + z - jax.lax.stop_gradient(z), codes, commitment)  # to the codebook and to the encoder

  def features(self, codes):
    return jnp.take(self.codebook, codes, axis=0)


class NearestSettings(TokenizerSettings):
  pass


def test_a_learnt_codebook_is_trained_by_what_its_features_are_used_for(monkeypatch):
  monkeypatch.setitem(QUANTIZERS, NearestSettings, lambda s: Nearest(s.codes, 3))
  s = small.settings(**small.SHALLOW)
  s = dataclasses.replace(s, tokenizer=NearestSettings(**vars(s.tokenizer)))
  model, batch = small.omni(s), small.batch(s)
  params = small.params(model)
  before, seen = params["tokenizer"]["quantizer"]["codebook"], model.view(params)
  assert param_specs(TOKENIZER_RULES, "tokenizer", params["tokenizer"])["quantizer"]["codebook"] == P()
  encoded = jax.jit(model.encode)(seen, batch["images"].astype(jnp.float32) / 127.5 - 1)
  features, codes, auxiliary = encoded.features, encoded.codes, encoded.auxiliary
  assert features.shape[-1] == 3 and auxiliary.shape == codes.shape and auxiliary.min() > 0
  np.testing.assert_allclose(model.features(seen, codes), features, atol=1e-6)
  np.testing.assert_array_equal(model.codebook(seen), before)
  for name, run in (("tokenizer", jax.jit), ("joint", lambda step: functools.partial(jax.eval_shape, step))):
    stage = s.stages[name]
    state = enter_stage(fresh_state(params), stage.moves, make_optimizer(s.optimizer, stage))
    codebook = run(make_train_step(small.system(s), stage, 0))(state, batch)[0].params["tokenizer"]["quantizer"][
      "codebook"
    ]
    assert codebook.shape == before.shape and (name == "joint" or np.abs(codebook - before).max() > 0)
