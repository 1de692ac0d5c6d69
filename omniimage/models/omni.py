"""Omni: image tokenizer, prior and diffusion decoder as one model under one parameter tree.

Axes: B rows, L positions, I image slots a row, N visual tokens of an image, h × w their grid, Z channels of a token, C
codes, D prior width, S text states a painter reads, H × W pixels.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import Array

from omniimage.models.adapter import READ, InputFeatures
from omniimage.models.attention import AttentionMask, Causal
from omniimage.models.chunks import ChunkLayout
from omniimage.models.diffusion_decoder import DiffusionDecoder
from omniimage.models.execution import Execution, GatherParams, execution_of, stack_layers, view
from omniimage.models.kernels import PLAIN, Kernels
from omniimage.models.prior import Prior
from omniimage.models.quantizers import quantizer_for
from omniimage.models.tokenizer import EncodedImages, ImageTokenizer
from omniimage.settings import Settings
from omniimage.size import Size
from omniimage.vocabulary import Vocabulary

Params = dict


@dataclasses.dataclass(frozen=True)
class Omni:
  """The three modules of one model, and what passes between them. All methods are pure functions of parameters.

  Parameters are stored stacked (one array for all layers). With `scan=False` the methods take them unstacked; `view`
  turns the one into the other.
  """

  settings: Settings
  text_size: int
  scan: bool = True
  kernels: Kernels = PLAIN
  gather_params: GatherParams | None = None
  unwritten: tuple[int, ...] = ()  # text ids that are not to be sampled, of `Vocabulary`

  @functools.cached_property
  def vocabulary(self) -> Vocabulary:
    return Vocabulary(self.text_size, self.tokenizer.quantizer.codes, self.unwritten)

  @functools.cached_property
  def tokenizer(self) -> ImageTokenizer:
    s = self.settings.tokenizer
    return ImageTokenizer(s, quantizer_for(s), self._execution("tokenizer"))

  @functools.cached_property
  def prior(self) -> Prior:
    return Prior(self.settings.prior, self.vocabulary, self._execution("prior"))

  @functools.cached_property
  def decoder(self) -> DiffusionDecoder:
    return DiffusionDecoder(self.settings.decoder, self._execution("decoder"))

  def _execution(self, part: str) -> Execution:
    return execution_of(self.settings, part, self.scan, self.kernels, self.gather_params)

  def init(self, rng: Array) -> Params:
    """Fresh parameters {tokenizer, prior, decoder}, stacked."""
    if self.gather_params is not None or self.kernels != PLAIN:  # neither makes parameters
      return dataclasses.replace(self, gather_params=None, kernels=PLAIN).init(rng)
    s, (first, second, third) = self.settings, jax.random.split(rng, 3)
    # One visual token: parameters are the same whatever the size of images.
    image = jnp.zeros((1, s.tokenizer.patch_size, s.tokenizer.patch_size, 3))
    tokens, positions = jnp.zeros((1, 8), jnp.int32), jnp.zeros((1, 8, 3), jnp.int32)
    channels = self.tokenizer.quantizer.channels
    features, states = jnp.zeros((1, 1, 1, channels)), jnp.zeros((1, 1, s.prior.width))
    encoder_states = jnp.zeros((1, s.tokenizer.width))
    variables = {
      "tokenizer": self.tokenizer.init(first, image),
      "prior": self.prior.init(second, tokens, positions, encoder_states, method="init_parameters"),
      "decoder": self.decoder.init(third, features, states, method="init_parameters"),
    }
    return {part: stack_layers(value["params"]) for part, value in variables.items()}

  def view(self, params: Params) -> Params:
    """Stored parameters as the methods of this object take them."""
    return view(params, self.scan, self.gather_params)

  @property
  def reduction(self) -> int:
    """Painted pixels a pixel that the tokenizer reads, along one side."""
    return self.settings.decoder.pixels_per_token // self.settings.tokenizer.patch_size

  def layout(self, rows: int, columns: int, chunk_rows: int, offset: int = 0, chunk_columns: int = 0) -> ChunkLayout:
    """Of the patches that are painted from rows × columns visual tokens."""
    d = self.settings.decoder
    canvas = Size(rows, columns, d.pixels_per_token).patches(d.patch_size)
    return ChunkLayout(*canvas, chunk_rows, offset, chunk_columns)

  def shrink(self, images: Array) -> Array:
    """Images (..., H, W, 3) as the tokenizer reads them: averaged down where the decoder paints more pixels."""
    r = self.reduction
    *lead, H, W, _ = images.shape
    return images if r == 1 else images.reshape(*lead, H // r, r, W // r, r, 3).mean((-4, -2))

  def encode(self, params: Params, images: Array) -> EncodedImages:
    """Images (..., H, W, 3) in [-1, 1], as the tokenizer reads them → their h × w visual tokens."""
    *lead, H, W, _ = images.shape
    encoded = self.tokenizer.apply({"params": params["tokenizer"]}, images.reshape(-1, H, W, 3), method="encode")
    return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), encoded)

  @property
  def reads_features(self) -> bool:
    """Whether the prior reads features of input images, instead of their codes or beside them."""
    return self.settings.prior.input_images in READ

  def adapt(self, params: Params, encoded: EncodedImages) -> Array | None:
    """Features (..., N, D) that the prior reads of encoded images if they are input; None if it reads codes alone."""
    if not self.reads_features:
      return None
    *lead, h, w, E = encoded.states.shape
    states = encoded.states.reshape(*lead, h * w, E)
    return self.prior.apply({"params": params["prior"]}, states, method="adapt")

  def features(self, params: Params, codes: Array) -> Array:
    """Codes (...) → the features (..., Z) that `encode` gave with them."""
    return self.tokenizer.apply({"params": params["tokenizer"]}, codes, method="features")

  def codebook(self, params: Params) -> Array:
    """Features of every code, (C, Z)."""
    return self.features(params, jnp.arange(self.vocabulary.image_codes, dtype=jnp.int32))

  def render(self, params: Params, features: Array) -> Array:
    """Features (..., h, w, Z) → images (..., H, W, 3) of the tokenizer's own decoder; no painting."""
    lead = features.shape[:-3]
    images = self.tokenizer.apply(
      {"params": params["tokenizer"]}, features.reshape(-1, *features.shape[-3:]), method="decode"
    )
    return images.reshape(*lead, *images.shape[1:])

  def hidden(
    self,
    params: Params,
    tokens: Array,
    positions: Array,
    segments: Array,
    features: InputFeatures | None = None,
  ) -> Array:
    """Final normalized states (B, L, D) of packed rows, with `features` of their input images if it reads them."""
    mask = AttentionMask(Causal(), segments, segments)
    return self.prior.apply({"params": params["prior"]}, tokens, positions, mask, features=features)[0]

  def head(self, params: Params, kind: str) -> Array:
    """The prior's output matrix (D, padded V) of "text" or "image"."""
    return self.prior.apply({"params": params["prior"]}, kind, method="head_kernel")

  def text_states(self, hidden: Array, tokens: Array, segments: Array, image_start: Array) -> tuple[Array, Array]:
    """What conditions the painters of images: the last S text states of each image's segment before its `<image>`.

    Args:
      hidden: (B, L, D) of the prior.
      tokens, segments: (B, L).
      image_start: (B, I) index of each image's first code.

    Returns:
      states (B, I, S, D), in order and at the end of the window, and which of them exist (B, I, S) bool.
    """
    last, there = last_text(tokens, segments, image_start, self.text_size, self.settings.decoder.text_length)
    B, I, S = last.shape
    states = jnp.take_along_axis(hidden, last.reshape(B, -1, 1), axis=1)
    return states.reshape(B, I, S, hidden.shape[-1]), there


def last_text(tokens: Array, segments: Array, image_start: Array, text_size: int, length: int) -> tuple[Array, Array]:
  """Where the text of images stands: the last S = min(length, L) text tokens of each image's segment before its
  `<image>`.

  Args:
    tokens, segments: (B, L).
    image_start: (B, I) index of each image's first code.

  Returns:
    places (B, I, S) in the row, in order and at the end of the window, and which of them exist (B, I, S) bool.
  """
  L = tokens.shape[1]
  index = jnp.arange(L)
  own = jnp.take_along_axis(segments, image_start, axis=1)
  before = index < image_start[:, :, None]
  seen = (tokens < text_size)[:, None] & (segments[:, None] == own[:, :, None]) & before
  last, _ = jax.lax.top_k(jnp.where(seen, index, -1), min(length, L))
  last = last[..., ::-1]
  return jnp.maximum(last, 0), last >= 0


def place_codes(tokens: Array, codes: Array, image_start: Array, image_mask: Array, first_code: int) -> Array:
  """Writes the images' codes (B, I, N) into their placeholders in tokens (B, L); code 0 has the id `first_code`."""
  return _write(tokens, codes + first_code, image_start, image_mask)


def place_features(features: Array, image_start: Array, is_input: Array, length: int) -> InputFeatures:
  """Puts features (B, I, N, D) of images whose codes begin at image_start (B, I), of those that are input (B, I), at
  the places of the codes in rows of a length."""
  B, D = features.shape[0], features.shape[-1]
  values = _write(jnp.zeros((B, length, D), features.dtype), features, image_start, is_input)
  there = _write(jnp.zeros((B, length), bool), jnp.ones(features.shape[:3], bool), image_start, is_input)
  return InputFeatures(values, there)


def _write(rows: Array, values: Array, image_start: Array, image_mask: Array) -> Array:
  """Rows (B, L, …) with values (B, I, N, …) of the images of the mask (B, I) from where each starts (B, I)."""
  index = image_start[..., None] + jnp.arange(values.shape[2])
  index = jnp.where(image_mask[..., None], index, rows.shape[1])  # out of bounds: dropped
  write = jax.vmap(lambda row, at, own: row.at[at.ravel()].set(own.reshape(-1, *row.shape[1:]), mode="drop"))
  return write(rows, index, values)
