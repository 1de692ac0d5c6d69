"""One loss for every stage: text·CE(text) + image·CE(codes) + diffusion·flow + pixel·reconstruction.

Weights are Python floats: a term of weight zero is not traced. Which parts learn is decided by whoever differentiates,
by differentiating the parameters of moving parts only; so a frozen part runs forward and nothing more.

Axes: B rows, L positions, I image slots a row, F = B·I images, N visual tokens or patches of an image, M finished
patches, P pixels of a patch, h × w visual tokens, Z their channels, C chunks.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from omniimage.models.attention import AttentionMask
from omniimage.models.chunks import ChunkLayout, DoubledChunks
from omniimage.models.layers import patchify
from omniimage.models.omni import Omni, Params, place_codes
from omniimage.settings import StageSettings
from omniimage.streams import Stream, fold
from omniimage.training import losses

Batch = dict[str, Array]
Metrics = dict[str, Array]

NOTHING = 1e-6  # divides a term that nothing in the batch has a weight for


def totals(batch: Batch, first_code: int) -> Metrics:
  """What each term is divided by: the weights and images of the whole global batch, never zero."""
  is_code = batch["tokens"] >= first_code
  sums = {
    "text": jnp.sum(batch["loss_weights"] * ~is_code),
    "image": jnp.sum(batch["loss_weights"] * is_code),
    "diffusion": jnp.sum(batch["image_mask"] & batch["image_is_target"]),
    "pixel": jnp.sum(batch["image_mask"]),
  }
  return {name: jnp.maximum(value.astype(jnp.float32), NOTHING) for name, value in sums.items()}


def teaches(stage: StageSettings, total: Metrics) -> Array:
  """Whether a batch of these totals has a weight for any term of the stage, bool."""
  return functools.reduce(jnp.logical_or, (total[n] > NOTHING for n in total if getattr(stage.weights, n)))


def objective(
  omni: Omni, stage: StageSettings, params: Params, batch: Batch, keys: Array, layout: Array, total: Metrics
) -> tuple[Array, Metrics]:
  """The loss of a batch, or of some of its rows.

  Args:
    params: {tokenizer, prior, decoder} as stored (stacked).
    batch: rows, of `omniimage.data.batches`.
    keys: (B,) random keys, one a row, so that a row's noise does not depend on which rows are beside it.
    layout: scalar int, which of the decoder's chunk layouts this step uses.
    total: of `totals`, over the whole global batch.

  Returns:
    loss, and each term, unweighted. Losses and terms of several microbatches add up to those of the whole.
  """
  weights = stage.weights
  params = omni.view(params)
  tokens, metrics = batch["tokens"], {}
  if omni.settings.data.images_per_row:
    images = batch["images"].astype(jnp.float32) / 127.5 - 1
    small = omni.shrink(images)
    features, codes, _ = omni.encode(params, small)
    flat = jax.lax.stop_gradient(codes).reshape(*codes.shape[:2], -1)
    tokens = place_codes(tokens, flat, batch["image_start"], batch["image_mask"], omni.vocabulary.codes)

  if weights.pixel:
    error = jnp.mean(jnp.square(omni.render(params, features) - small), axis=(-3, -2, -1))
    metrics["pixel"] = jnp.sum(error * batch["image_mask"]) / total["pixel"]

  if weights.text or weights.image or weights.diffusion:
    hidden = omni.hidden(params, tokens, batch["positions"], batch["segments"])

  z_loss = 0.0
  if weights.text:
    is_text = batch["loss_weights"] * (tokens < omni.vocabulary.codes)
    following, text_weights = (jnp.pad(x[:, 1:], ((0, 0), (0, 1))) for x in (tokens, is_text / total["text"]))
    text_total, metrics["text"] = losses.cross_entropy(
      hidden, omni.head(params, "text"), jnp.where(text_weights > 0, following, 0), text_weights,
      omni.vocabulary.text_and_specials, weights.z,
    )  # fmt: skip
    z_loss += weights.text * (text_total - metrics["text"])

  if weights.image or stage.sampled_codes:
    B, I, N = flat.shape
    index = batch["image_start"][..., None] + jnp.arange(N)
    at_codes = jnp.take_along_axis(hidden, jnp.maximum(index - 1, 0).reshape(B, I * N, 1), axis=1)

  if weights.image:
    code_weights = jnp.take_along_axis(batch["loss_weights"], index.reshape(B, -1), axis=1)
    code_weights *= jnp.repeat(batch["image_mask"], N, axis=1) / total["image"]
    image_total, metrics["image"] = losses.cross_entropy(
      at_codes, omni.head(params, "image"), flat.reshape(B, -1), code_weights, omni.vocabulary.image_codes, weights.z
    )
    z_loss += weights.image * (image_total - metrics["image"])

  if weights.diffusion:
    if stage.sampled_codes:
      features = _some_sampled(omni, stage.sampled_codes, params, features, at_codes, keys)
    text = omni.text_states(hidden, tokens, batch["segments"], batch["image_start"])
    branches = [
      functools.partial(paint_error, omni, params, images, features, text, keys, omni.layout(*entry))
      for entry in zip(omni.settings.decoder.chunk_rows, omni.settings.decoder.chunk_offsets)
    ]
    error = branches[0]() if len(branches) == 1 else jax.lax.switch(layout, branches)
    painted = batch["image_mask"] & batch["image_is_target"]
    metrics["diffusion"] = jnp.sum(error * painted) / total["diffusion"]

  loss = sum(getattr(weights, name) * value for name, value in metrics.items()) + z_loss
  return loss, metrics


def paint_error(
  omni: Omni,
  params: Params,
  images: Array,
  features: Array,
  text: tuple[Array, Array],
  keys: Array,
  layout: ChunkLayout,
) -> Array:
  """Flow-matching error (B, I) of painting `images` (B, I, H, W, 3), each chunk from its own time and noise.

  The sequence is [finished | noisy]; the finished copy carries light noise and says so (t = 1 − σ).
  """
  s = omni.settings.decoder
  B, I = images.shape[:2]
  clean = patchify(images, s.patch_size).reshape(B * I, -1, 3 * s.patch_size**2)
  M, chunk = layout.finished, layout.chunk_of_row

  def draw(stream: Stream, sampler, *shape):
    """(F, *shape), each row from its own key."""
    rows = jax.vmap(lambda key: sampler(fold(key, stream), (I, *shape)))(keys)
    return rows.reshape(B * I, *shape)

  t = jax.nn.sigmoid(s.time_mean + s.time_std * draw(Stream.TIMES, jax.random.normal, layout.count))[:, chunk]
  sigma = s.finished_noise * draw(Stream.FINISHED_SIGMA, jax.random.uniform, 1)
  t_patch = jnp.repeat(t, layout.columns, axis=1)[..., None]
  patches = losses.interpolate(clean, draw(Stream.NOISE, jax.random.normal, *clean.shape[1:]), t_patch)
  if M:
    noise = draw(Stream.FINISHED_NOISE, jax.random.normal, M, clean.shape[2])
    patches = jnp.concatenate([losses.interpolate(clean[:, :M], noise, 1 - sigma[..., None]), patches], axis=1)
    t = jnp.concatenate([jnp.repeat(1 - sigma, layout.finished_rows, axis=1), t], axis=1)

  keep_tokens = draw(Stream.DROPPED_TOKENS, jax.random.uniform) >= s.drop_tokens
  keep_text = draw(Stream.DROPPED_TEXT, jax.random.uniform) >= s.drop_text
  states, exists = (x.reshape(B * I, *x.shape[2:]) for x in text)
  variables = {"params": params["decoder"]}
  memory = omni.decoder.apply(
    variables, features.reshape(B * I, *features.shape[2:]), states, exists, keep_tokens, keep_text, method="remember"
  )
  predicted, _ = omni.decoder.apply(
    variables,
    patches,
    ((0, layout.finished_rows), (0, layout.rows)),
    t,
    memory,
    AttentionMask(DoubledChunks(layout, s.context_rows)),
    layout.columns,
  )
  error = losses.flow_error(predicted[:, M:], clean, t_patch)
  return jnp.mean(error, axis=(1, 2)).reshape(B, I)


def _some_sampled(omni: Omni, share: float, params: Params, features: Array, at_codes: Array, keys: Array) -> Array:
  """Replaces the features of a share of the images by those of codes drawn from the prior's own teacher-forced logits.

  Straight-through Gumbel-softmax (Jang et al. 2017): the painter sees one code, the prior receives the gradient of the
  softmax. One pass, not a roll-out: each code is drawn given the true codes before it.
  """
  I = features.shape[1]
  logits = omni.prior.apply({"params": params["prior"]}, at_codes, "image", method="logits")
  gumbel = jax.vmap(lambda key: jax.random.gumbel(fold(key, Stream.TEACHER_FORCED_CODES), logits.shape[1:]))(keys)
  soft = jax.nn.softmax(logits + gumbel)
  hard = jax.nn.one_hot(jnp.argmax(soft, axis=-1), soft.shape[-1])
  drawn = (soft + jax.lax.stop_gradient(hard - soft)) @ omni.codebook(params)
  chosen = jax.vmap(lambda key: jax.random.uniform(fold(key, Stream.PAINTED_FROM_SAMPLED), (I,)))(keys) < share
  return jnp.where(chosen[..., None, None, None], drawn.reshape(features.shape), features)
