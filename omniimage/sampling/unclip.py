"""Drawing with unCLIP: a text's embedding of an image, then the image of both.

Axes: B prompts, S text tokens, E numbers of an embedding, D width.
"""

import jax.numpy as jnp
from jax import Array

from omniimage.models.canvas import Params
from omniimage.models.unclip import UnClip
from omniimage.sampling.canvas import CanvasDrawer, denoise, noise_of, painted, text_branches
from omniimage.sampling.drawing import Drawing
from omniimage.sampling.guidance import coefficients_at, guided, kept_by, repeated
from omniimage.settings import SamplingSettings
from omniimage.size import Size
from omniimage.streams import Stream

TRIES = 2  # embeddings drawn of each text, of which the one nearer to it is painted, as in DALL·E 2


def draw_embeddings(
  model: UnClip,
  params: Params,
  text_BSD: Array,
  there_BS: Array,
  text_embedding_BE: Array,
  keys: Array,
  sampling: SamplingSettings,
) -> Array:
  """(B, E), drawn by the prior with `sampling.guidance`."""
  passes, (B, E) = text_branches(sampling.guidance, sampling), text_embedding_BE.shape
  given = repeated(TRIES * len(passes), text_BSD, there_BS, text_embedding_BE)
  memory = model.expect(params, given[0], given[1], kept_by(passes, TRIES * B), given[2])

  def predict(x, t):
    (noisy,) = repeated(len(passes), x)
    predicted = model.predict_embedding(params, noisy, jnp.full((len(noisy),), t), memory)
    return guided(coefficients_at(t, passes, sampling), predicted)

  noise = noise_of(keys, TRIES, E, stream=Stream.EMBEDDINGS)
  drawn = denoise(predict, jnp.swapaxes(noise, 0, 1).reshape(TRIES * B, E), sampling)
  drawn = drawn.reshape(TRIES, B, E)
  nearest = jnp.argmax(jnp.einsum("nBE,BE->nB", drawn, text_embedding_BE), axis=0)
  return jnp.take_along_axis(drawn, nearest[None, :, None], axis=0)[0]


def draw_unclip(
  model: UnClip,
  params: Params,
  tokens_BS: Array,
  there_BS: Array,
  keys: Array,
  *,
  size: Size,
  sampling: SamplingSettings,
) -> Drawing:
  """Texts → drawing. Pure; `params` unstacked. `sampling.text_guidance` guides the painting by text and embedding."""
  text_BSD, text_embedding_BE = model.read(params, tokens_BS, there_BS), model.embed_texts(params, tokens_BS, there_BS)
  embedding_BE = draw_embeddings(model, params, text_BSD, there_BS, text_embedding_BE, keys, sampling)
  passes = text_branches(sampling.text_guidance, sampling)
  text, there, embedding = repeated(len(passes), text_BSD, there_BS, embedding_BE)
  kept = kept_by(passes, len(keys))
  memory = model.remember_both(params, text, there, kept, embedding, kept)
  return painted(model, params, memory, passes, keys, size, sampling)


class UnClipDrawer(CanvasDrawer):
  draw_canvas = staticmethod(draw_unclip)
