"""The terms of Omni's loss: text·CE(text) + image·CE(codes) + diffusion·flow + pixel·reconstruction, and LPIPS beside
the last two.

Weights are Python floats: a term of weight zero is not traced. Which parts learn is decided by whoever differentiates,
by differentiating the parameters of moving parts only; so a frozen part runs forward and nothing more.

Axes: B rows, L positions, I image slots a row, F = B·I images, N visual tokens or patches of an image, M finished
patches, P pixels of a patch, D prior width, h × w visual tokens, Z their channels, S text states, C chunks, V codes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from omniimage.data.batches import Batch
from omniimage.models.adapter import InputFeatures
from omniimage.models.attention import AttentionMask
from omniimage.models.chunks import ChunkLayout, DoubledChunks
from omniimage.models.cross_entropy import cross_entropy
from omniimage.models.flow import flow_error, interpolate
from omniimage.models.layers import patchify, unpatchify
from omniimage.models.lpips import Lpips
from omniimage.models.omni import Omni, Params, place_codes, place_features
from omniimage.models.tokenizer import EncodedImages
from omniimage.sampling.prompts import to_float
from omniimage.settings import StageSettings
from omniimage.streams import Stream, fold
from omniimage.systems.draws import of_images
from omniimage.systems.perceptual import distances, late_distances
from omniimage.systems.system import Metrics, Totals


@dataclasses.dataclass(frozen=True)
class Pass:
  """A forward pass over some rows of a batch. Each of its arrays is computed once, by the first term that asks for it.

  Attributes:
    params: as the model's methods take them, of `Omni.view`.
    keys: (B,) random keys, one a row.
    layout_index: scalar int, which of the decoder's chunk layouts this update uses.
    lpips: if the stage compares pictures by it.
  """

  omni: Omni
  stage: StageSettings
  params: Params
  batch: Batch
  keys: Array
  layout_index: Array
  lpips: Lpips | None = None

  @functools.cached_property
  def images_BIHW3(self) -> Array:
    """In [-1, 1]."""
    return to_float(self.batch["images"])

  @functools.cached_property
  def read_BIHW3(self) -> Array:
    """The images as the tokenizer reads them."""
    return self.omni.shrink(self.images_BIHW3)

  @functools.cached_property
  def encoded(self) -> EncodedImages:
    """Of the images: features_BIhwZ, codes_BIhw, the encoder's states and, if the quantizer has one, its loss."""
    return self.omni.encode(self.params, self.read_BIHW3)

  @property
  def features_BIhwZ(self) -> Array:
    return self.encoded.features

  @functools.cached_property
  def rendered_BIHW3(self) -> Array:
    """The images as the tokenizer renders them."""
    return self.omni.render(self.params, self.features_BIhwZ)

  @functools.cached_property
  def painted(self) -> tuple[Array, ...]:
    """Of painting the images, from true codes or, for a share of them, from the prior's own: the flow-matching error
    (B, I) and, if the stage has a weight for it, LPIPS (B, I)."""
    features_BIhwZ = some_sampled(self) if self.stage.sampled_codes else self.features_BIhwZ
    images, text = self.images_BIHW3, self.text_states  # before any branch: what one has traced, no other may use
    lpips = self.lpips if self.stage.weight("diffusion_lpips") else None
    branches = [
      functools.partial(paint_errors, self.omni, self.params, images, features_BIhwZ, text, self.keys, layout, lpips)
      for layout in trained_layouts(self.omni, *features_BIhwZ.shape[2:4])
    ]
    return branches[0]() if len(branches) == 1 else jax.lax.switch(self.layout_index, branches)

  @functools.cached_property
  def codes_BIN(self) -> Array:
    """As targets: without a gradient. Those of a coded batch have been made before."""
    codes = self.batch["codes"] if "codes" in self.batch else jax.lax.stop_gradient(self.encoded.codes)
    return codes.reshape(*codes.shape[:2], -1)

  @functools.cached_property
  def tokens_BL(self) -> Array:
    """With the images' codes in their places."""
    tokens, batch = self.batch["tokens"], self.batch
    if not self.omni.settings.data.images_per_row:
      return tokens
    return place_codes(tokens, self.codes_BIN, batch["image_start"], batch["image_mask"], self.omni.vocabulary.codes)

  @property
  def input_features(self) -> InputFeatures | None:
    """Of the images that are no targets, if the prior reads more of them than codes. Their gradient reaches the adapter
    and, in a stage that moves it, the tokenizer's encoder."""
    batch = self.batch
    if not (self.omni.reads_features and self.omni.settings.data.images_per_row):
      return None
    is_input = batch["image_mask"] & ~batch["image_is_target"]
    features_BIND = self.omni.adapt(self.params, self.encoded)
    return place_features(features_BIND, batch["image_start"], is_input, batch["tokens"].shape[1])

  @functools.cached_property
  def hidden_BLD(self) -> Array:
    """The prior's states."""
    positions, segments = self.batch["positions"], self.batch["segments"]
    return self.omni.hidden(self.params, self.tokens_BL, positions, segments, self.input_features)

  @functools.cached_property
  def code_places_BIN(self) -> Array:
    return self.batch["image_start"][..., None] + jnp.arange(self.codes_BIN.shape[-1])

  @functools.cached_property
  def before_codes_BND(self) -> Array:
    """The states that predict the codes, those of a row's images one after the other."""
    B, I, N = self.code_places_BIN.shape
    before = jnp.maximum(self.code_places_BIN - 1, 0).reshape(B, I * N, 1)
    return jnp.take_along_axis(self.hidden_BLD, before, axis=1)

  @functools.cached_property
  def text_states(self) -> tuple[Array, Array]:
    """states_BISD, exist_BIS."""
    return self.omni.text_states(self.hidden_BLD, self.tokens_BL, self.batch["segments"], self.batch["image_start"])


class Value(NamedTuple):
  """What a term is, and what is added to the loss with the same weight but not logged, if anything."""

  term: Array
  regularizer: Array | None = None


@dataclasses.dataclass(frozen=True)
class Term:
  """An addend of the loss.

  Attributes:
    weight: of a batch, given where codes stand: what the term is divided by, over the whole global batch.
    value: of a pass and that total; adds up over rows.
  """

  weight: Callable[[Batch, Array], Array]
  value: Callable[[Pass, Array], Value]


def pixel(rows: Pass, total: Array) -> Value:
  """Mean squared error of the tokenizer's own rendering, and the quantizer's loss beside it."""
  auxiliary_BIhw = rows.encoded.auxiliary
  error_BI = jnp.mean(jnp.square(rows.rendered_BIHW3 - rows.read_BIHW3), axis=(-3, -2, -1))

  def mean(values_BI: Array) -> Array:
    return jnp.sum(values_BI * rows.batch["image_mask"]) / total

  return Value(mean(error_BI), None if auxiliary_BIhw is None else mean(jnp.mean(auxiliary_BIhw, axis=(-2, -1))))


def pixel_lpips(rows: Pass, total: Array) -> Value:
  """LPIPS of the same rendering."""
  distance_BI = distances(rows.lpips, rows.rendered_BIHW3, rows.read_BIHW3)
  return Value(jnp.sum(distance_BI * rows.batch["image_mask"]) / total)


def text(rows: Pass, total: Array) -> Value:
  """Cross-entropy of text and specials, in nats a token."""
  omni, tokens_BL, z = rows.omni, rows.tokens_BL, rows.stage.weight("z")
  is_text = rows.batch["loss_weights"] * (tokens_BL < omni.vocabulary.codes)
  following, weights = (jnp.pad(x[:, 1:], ((0, 0), (0, 1))) for x in (tokens_BL, is_text / total))
  with_z, nll = cross_entropy(
    rows.hidden_BLD, omni.head(rows.params, "text"), jnp.where(weights > 0, following, 0), weights,
    omni.vocabulary.text_and_specials, z,
  )  # fmt: skip
  return Value(nll, with_z - nll)


def image(rows: Pass, total: Array) -> Value:
  """Cross-entropy of the codes, in nats a code."""
  B, _, N = rows.codes_BIN.shape
  weights = jnp.take_along_axis(rows.batch["loss_weights"], rows.code_places_BIN.reshape(B, -1), axis=1)
  weights *= jnp.repeat(rows.batch["image_mask"], N, axis=1) / total
  head, ids = rows.omni.head(rows.params, "image"), rows.omni.vocabulary.image_codes
  with_z, nll = cross_entropy(
    rows.before_codes_BND, head, rows.codes_BIN.reshape(B, -1), weights, ids, rows.stage.weight("z")
  )
  return Value(nll, with_z - nll)


def diffusion(rows: Pass, total: Array) -> Value:
  """Flow matching of the painter."""
  return _mean_of_targets(rows, rows.painted[0], total)


def diffusion_lpips(rows: Pass, total: Array) -> Value:
  """LPIPS of what the painter predicts, from `perceptual.LATE` on."""
  return _mean_of_targets(rows, rows.painted[1], total)


def _mean_of_targets(rows: Pass, values_BI: Array, total: Array) -> Value:
  return Value(jnp.sum(values_BI * (rows.batch["image_mask"] & rows.batch["image_is_target"])) / total)


def _images(batch: Batch, is_code: Array) -> Array:
  return jnp.sum(batch["image_mask"])


def _targets(batch: Batch, is_code: Array) -> Array:
  return jnp.sum(batch["image_mask"] & batch["image_is_target"])


TERMS = {  # in the order in which they are added
  "pixel": Term(_images, pixel),
  "pixel_lpips": Term(_images, pixel_lpips),
  "text": Term(lambda batch, is_code: jnp.sum(batch["loss_weights"] * ~is_code), text),
  "image": Term(lambda batch, is_code: jnp.sum(batch["loss_weights"] * is_code), image),
  "diffusion": Term(_targets, diffusion),
  "diffusion_lpips": Term(_targets, diffusion_lpips),
}


def weighted_sum(rows: Pass, totals: Totals) -> tuple[Array, Metrics]:
  """The loss of a pass, and each term that its stage gives a weight."""
  values = {name: term.value(rows, totals[name]) for name, term in TERMS.items() if rows.stage.weight(name)}
  loss = sum(rows.stage.weight(name) * value.term for name, value in values.items())
  added = {name: value.regularizer for name, value in values.items() if value.regularizer is not None}
  loss += sum((rows.stage.weight(name) * regularizer for name, regularizer in added.items()), 0.0)
  return loss, {name: value.term for name, value in values.items()}


def trained_layouts(omni: Omni, rows: int, columns: int) -> list[ChunkLayout]:
  """The painter's chunk layouts of images of rows × columns visual tokens, one of which every update uses."""
  return [omni.layout(rows, columns, *entry) for entry in omni.settings.decoder.layouts]


def paint_errors(
  omni: Omni,
  params: Params,
  images_BIHW3: Array,
  features_BIhwZ: Array,
  text: tuple[Array, Array],
  keys: Array,
  layout: ChunkLayout,
  lpips: Lpips | None = None,
) -> tuple[Array, ...]:
  """Flow-matching error (B, I) of painting images, each chunk from its own time and noise; with `lpips` that of what is
  predicted, too.

  The sequence is [finished | noisy]; the finished copy carries light noise and says so (t = 1 − σ).

  Args:
    text: of `Pass.text_states`.
    keys: (B,), one a row.
  """
  s = omni.settings.decoder
  B, I = images_BIHW3.shape[:2]
  clean_FNP = patchify(images_BIHW3, s.patch_size).reshape(B * I, -1, 3 * s.patch_size**2)
  M, chunk = layout.finished, layout.chunk_of_row

  draw = functools.partial(of_images, keys, I)
  t = jax.nn.sigmoid(s.time_mean + s.time_std * draw(Stream.TIMES, jax.random.normal, layout.count))[:, chunk]
  sigma = s.finished_noise * draw(Stream.FINISHED_SIGMA, jax.random.uniform, 1)
  t_patch = jnp.repeat(t, layout.columns, axis=1)[..., None]
  noise_FNP = draw(Stream.NOISE, jax.random.normal, *clean_FNP.shape[1:])
  patches = interpolate(clean_FNP, noise_FNP, t_patch)
  if M:
    noise_FMP = draw(Stream.FINISHED_NOISE, jax.random.normal, M, clean_FNP.shape[2])
    finished = interpolate(clean_FNP[:, :M], noise_FMP, 1 - sigma[..., None])
    patches = jnp.concatenate([finished, patches], axis=1)
    t = jnp.concatenate([jnp.repeat(1 - sigma, layout.finished_rows, axis=1), t], axis=1)

  keep_tokens = draw(Stream.DROPPED_TOKENS, jax.random.uniform) >= s.drop_tokens
  keep_text = draw(Stream.DROPPED_TEXT, jax.random.uniform) >= s.drop_text
  states, exists = (x.reshape(B * I, *x.shape[2:]) for x in text)
  features_FhwZ = features_BIhwZ.reshape(B * I, *features_BIhwZ.shape[2:])
  variables = {"params": params["decoder"]}
  memory = omni.decoder.apply(variables, features_FhwZ, states, exists, keep_tokens, keep_text, method="remember")
  predicted, _ = omni.decoder.apply(
    variables,
    patches,
    ((0, layout.finished_rows), (0, layout.rows)),
    t,
    memory,
    AttentionMask(DoubledChunks(layout, s.context_rows)),
    layout.columns,
  )
  predicted_FNP = predicted[:, M:]
  found = [jnp.mean(flow_error(predicted_FNP, clean_FNP, t_patch), axis=(1, 2))]
  if lpips is not None:
    whole = functools.partial(unpatchify, patch_size=s.patch_size, columns=layout.columns)
    found.append(late_distances(lpips, predicted_FNP, clean_FNP, t_patch, whole))
  return tuple(values_F.reshape(B, I) for values_F in found)


def some_sampled(rows: Pass) -> Array:
  """features_BIhwZ, those of a share of the images replaced by those of codes drawn from the prior's own
  teacher-forced logits.

  Straight-through Gumbel-softmax (Jang et al. 2017): the painter sees one code, the prior receives the gradient of the
  softmax. One pass, not a roll-out: each code is drawn given the true codes before it.
  """
  omni, features_BIhwZ = rows.omni, rows.features_BIhwZ
  I, share = features_BIhwZ.shape[1], rows.stage.sampled_codes
  prior = {"params": rows.params["prior"]}
  logits_BNV = omni.prior.apply(prior, rows.before_codes_BND, "image", method="logits")
  draw = jax.vmap(lambda key: jax.random.gumbel(fold(key, Stream.TEACHER_FORCED_CODES), logits_BNV.shape[1:]))
  soft = jax.nn.softmax(logits_BNV + draw(rows.keys))
  hard = jax.nn.one_hot(jnp.argmax(soft, axis=-1), soft.shape[-1])
  drawn = (soft + jax.lax.stop_gradient(hard - soft)) @ omni.codebook(rows.params)
  chosen = jax.vmap(lambda key: jax.random.uniform(fold(key, Stream.PAINTED_FROM_SAMPLED), (I,)))(rows.keys) < share
  return jnp.where(chosen[..., None, None, None], drawn.reshape(features_BIhwZ.shape), features_BIhwZ)
