"""From a text to the embedding of an image, and from both to pixels: unCLIP, DALL·E 2 (Ramesh et al. 2022, arXiv
2204.06125).

CLIP (Radford et al. 2021, 2103.00020) gives images and texts one space; a diffusion prior draws an image's embedding of
a text; a decoder paints from it and the text. Here the decoder paints the pixels at once, small as they are, and both
diffusions are the denoiser of `omniimage.models.denoiser`, so that what is compared is what they are conditioned on:
embeddings are four more states of its memory, as there, and are not added to its time. The prior's sequence is the one
embedding that is denoised.

Axes: B images, E numbers of an embedding, S text tokens, D width.
"""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from omniimage.models.canvas import Params, PixelDiffusion
from omniimage.models.denoiser import Denoiser
from omniimage.models.diffusion_decoder import Memory
from omniimage.models.execution import Execution
from omniimage.models.layers import patchify
from omniimage.models.text_encoder import TextEncoder
from omniimage.models.tokenizer import Trunk
from omniimage.settings import EmbedderSettings, PriorSettings

STATES = 4  # that an embedding becomes
LARGEST_SCALE = 100.0  # of similarities


class Embedder(nn.Module):
  """CLIP: an encoder of images and one of texts, the mean of whose states is projected. Embeddings have unit length."""

  settings: EmbedderSettings
  text: PriorSettings
  text_size: int
  execution: Execution = Execution()

  def setup(self):
    s = self.settings
    self.images = Trunk(s, s.encoder_depth, ("patches", "embedding"), s.embedding, self.execution)
    text = dataclasses.replace(self.text, depth=s.encoder_depth)
    self.texts = TextEncoder(text, self.text_size, self.execution)
    self.embedding = nn.Dense(s.embedding, dtype=self.execution.dtype)
    self.log_scale = self.param("log_scale", nn.initializers.constant(math.log(1 / 0.07)), (1,), jnp.float32)

  def of_images(self, images_BHW3: Array) -> Array:
    """(B, E) float32 of images in [-1, 1]."""
    side = self.settings.patch_size
    rows, columns = (length // side for length in images_BHW3.shape[1:3])
    return _unit(jnp.mean(self.images(patchify(images_BHW3, side), rows, columns)[0], axis=1))

  def of_texts(self, tokens_BS: Array, there_BS: Array) -> Array:
    """(B, E) float32 of text ids, of which some exist."""
    states_BSD = self.texts(tokens_BS, there_BS) * there_BS[..., None]
    return _unit(self.embedding(jnp.sum(states_BSD, axis=1) / jnp.maximum(jnp.sum(there_BS, axis=1), 1)[:, None]))

  def similarities(self, images_BHW3: Array, tokens_BS: Array, there_BS: Array) -> Array:
    """(images, texts): the logits of which belongs to which."""
    images_BE, texts_BE = self.of_images(images_BHW3), self.of_texts(tokens_BS, there_BS)
    return jnp.minimum(jnp.exp(self.log_scale), LARGEST_SCALE) * (images_BE @ texts_BE.T)


def _unit(x_BE: Array) -> Array:
  x_BE = x_BE.astype(jnp.float32)
  return x_BE * jax.lax.rsqrt(jnp.sum(jnp.square(x_BE), axis=-1, keepdims=True) + 1e-12)


class EmbeddingDenoiser(Denoiser):
  """A denoiser that is given an embedding beside the text."""

  def setup(self):
    super().setup()
    self.embedding = nn.Dense(STATES * self.settings.width, dtype=self.execution.dtype)

  def remember_both(
    self, text_BSD: Array, there_BS: Array, keep_text: Array, embedding_BE: Array, keep_embedding: Array
  ) -> Memory:
    """What is attended to: as of `remember`, and the embedding where it is kept, (B,) bool."""
    memory = self.remember(text_BSD, there_BS, keep_text)
    states = self.embedding(embedding_BE).reshape(len(embedding_BE), STATES, -1)
    seen = jnp.repeat(keep_embedding.astype(jnp.int32)[:, None], STATES, axis=1)
    return Memory(
      None,
      jnp.concatenate([memory.states, states.astype(memory.states.dtype)], axis=1),
      jnp.concatenate([memory.segments, seen], axis=1),
    )

  def init_both(self, patches_BNC: Array, text_BSD: Array, embedding_BE: Array) -> Array:
    """Touches every parameter, for `init`."""
    B, S, _ = text_BSD.shape
    kept = jnp.ones((B,), bool)
    memory = self.remember_both(text_BSD, jnp.ones((B, S), bool), kept, embedding_BE, kept)
    return self(patches_BNC, 1, jnp.zeros((B,)), memory)


@dataclasses.dataclass(frozen=True)
class UnClip(PixelDiffusion):
  """`config.tokenizer` describes the embedder, `config.prior` the text encoders, `config.decoder` the denoisers."""

  @functools.cached_property
  def embedder(self) -> Embedder:
    return Embedder(self.settings.tokenizer, self.settings.prior, self.text_size, self._execution("embedder"))

  @functools.cached_property
  def embedding_prior(self) -> EmbeddingDenoiser:
    s = self.settings
    own = dataclasses.replace(s.decoder, depth=s.tokenizer.prior_depth)
    return EmbeddingDenoiser(own, s.tokenizer.embedding, self._execution("embedding_prior"))

  @functools.cached_property
  def denoiser(self) -> EmbeddingDenoiser:
    return EmbeddingDenoiser(self.settings.decoder, self.channels * self.patch**2, self._execution("denoiser"))

  def _init(self, rng: Array) -> dict:
    s, keys = self.settings, jax.random.split(rng, 4)
    text, embedding = jnp.zeros((1, 1, s.prior.width)), jnp.zeros((1, s.tokenizer.embedding))
    side, tokens, there = s.tokenizer.patch_size, jnp.zeros((1, 8), jnp.int32), jnp.ones((1, 8), bool)

    def denoiser(model, key):
      return model.init(key, jnp.zeros((1, 1, model.channels)), text, embedding, method="init_both")

    return {
      "embedder": self.embedder.init(keys[0], jnp.zeros((1, side, side, 3)), tokens, there, method="similarities"),
      "text_encoder": self.text_encoder.init(keys[1], tokens, there),
      "embedding_prior": denoiser(self.embedding_prior, keys[2]),
      "denoiser": denoiser(self.denoiser, keys[3]),
    }

  def similarities(self, params: Params, images_BHW3: Array, tokens_BS: Array, there_BS: Array) -> Array:
    return self._embed(params, images_BHW3, tokens_BS, there_BS, method="similarities")

  def embed_images(self, params: Params, images_BHW3: Array) -> Array:
    """(B, E), each number of unit size in the mean, as diffusion has its targets."""
    return self._numbers(self._embed(params, images_BHW3, method="of_images"))

  def embed_texts(self, params: Params, tokens_BS: Array, there_BS: Array) -> Array:
    """Likewise."""
    return self._numbers(self._embed(params, tokens_BS, there_BS, method="of_texts"))

  def expect(self, params: Params, text_BSD: Array, there_BS: Array, keep: Array, text_embedding_BE: Array) -> Memory:
    """What the prior attends to: a text and its embedding, or nothing where they are not to be kept, (B,) bool."""
    given = text_BSD, there_BS, keep, text_embedding_BE, keep
    return self.embedding_prior.apply({"params": params["embedding_prior"]}, *given, method="remember_both")

  def predict_embedding(self, params: Params, noisy_BE: Array, t: Array, memory: Memory) -> Array:
    """x̂ (B, E) of noisy embeddings of images."""
    predicted = self.embedding_prior.apply({"params": params["embedding_prior"]}, noisy_BE[:, None], 1, t, memory)
    return predicted[:, 0]

  def remember_both(self, params: Params, *given: Array) -> Memory:
    """What the denoiser attends to; arguments as of `EmbeddingDenoiser.remember_both`."""
    return self.denoiser.apply({"params": params["denoiser"]}, *given, method="remember_both")

  def _embed(self, params: Params, *given: Array, method: str) -> Array:
    return self.embedder.apply({"params": params["embedder"]}, *given, method=method)

  def _numbers(self, embedding_BE: Array) -> Array:
    return embedding_BE * self.settings.tokenizer.embedding**0.5
