"""The terms of Omni's loss: text·CE(text) + image·CE(codes) + diffusion·flow + pixel·reconstruction, LPIPS beside the
last two, and the entropy of a learnt codebook's use.

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
from omniimage.models.cross_entropy import cross_entropy
from omniimage.models.lpips import Lpips
from omniimage.models.omni import Omni, Params, place_codes, place_features
from omniimage.models.quantizers.entropy import entropy_penalty
from omniimage.models.tokenizer import EncodedImages
from omniimage.sampling.prompts import to_float
from omniimage.settings import StageSettings
from omniimage.streams import Stream, fold
from omniimage.systems.omni_painting import paint_errors, trained_layouts
from omniimage.systems.perceptual import distances
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
    """Of painting the images, from true codes or, for shares that the stage names, from the prior's own, and from any
    others: the flow-matching error (B, I) and, if the stage has a weight for it, LPIPS (B, I)."""
    features_BIhwZ = some_sampled(self) if self.stage.sampled_codes else self.features_BIhwZ
    if self.stage.corrupted_codes:
      features_BIhwZ = some_corrupted(self, features_BIhwZ)
    images, text = self.images_BIHW3, self.text_states  # before any branch: what one has traced, no other may use
    given = self.omni, self.params, images, features_BIhwZ, text, self.keys
    lpips = self.lpips if self.stage.weight("diffusion_lpips") else None
    branches = [
      functools.partial(paint_errors, *given, layout, self.stage.few_steps, lpips)
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
    value: of a pass and that total; adds up over rows, but for `entropy`.
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


def entropy(rows: Pass, total: Array) -> Value:
  """That of a learnt codebook's use, in nats: of all images of the batch together, so it takes all rows at once."""
  affinity_BIhwC = rows.encoded.affinity
  *_, h, w, C = affinity_BIhwC.shape
  weights_BI = rows.batch["image_mask"] / (total * h * w)
  return Value(entropy_penalty(affinity_BIhwC.reshape(-1, C), jnp.repeat(weights_BI.reshape(-1), h * w)))


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
  "entropy": Term(_images, entropy),
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


def some_corrupted(rows: Pass, features_BIhwZ: Array) -> Array:
  """Features of which a share is that of codes drawn evenly from the codebook: a painter that has seen them reads a
  wrong code of the prior's by what stands around it."""
  shape = features_BIhwZ.shape[1:4]

  def draw(key):
    which, other = jax.random.split(fold(key, Stream.CORRUPTED_CODES))
    codes = jax.random.randint(other, shape, 0, rows.omni.vocabulary.image_codes)
    return jax.random.uniform(which, shape) < rows.stage.corrupted_codes, codes

  is_other_BIhw, codes_BIhw = jax.vmap(draw)(rows.keys)
  return jnp.where(is_other_BIhw[..., None], rows.omni.features(rows.params, codes_BIhw), features_BIhwZ)
