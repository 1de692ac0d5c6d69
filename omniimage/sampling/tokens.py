"""Drawing visual tokens: the prior writes them, and the image tokenizer's own decoder renders them.

Axes: B prompts, P their padded length, h × w visual tokens, H × W pixels, D prior width.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from omniimage.data.text import TextTokenizer
from omniimage.distributed.spread import Spread
from omniimage.models.adapter import InputFeatures
from omniimage.models.omni import Omni, Params
from omniimage.sampling.autoregressive import prefill, sample_tokens
from omniimage.sampling.drawing import Drawing, Draws, keys_of, row_keys
from omniimage.sampling.kept import Kept
from omniimage.sampling.kernels import over_rows
from omniimage.sampling.prompts import input_features, to_float, without_padding, without_words
from omniimage.sampling.together import Prompts
from omniimage.settings import SamplingSettings, Settings
from omniimage.vocabulary import Vocabulary


def draw_codes(
  omni: Omni,
  params: Params,
  tokens: Array,
  lengths: Array,
  bare: Array,
  bare_lengths: Array,
  keys: Array,
  features: tuple[InputFeatures | None, InputFeatures | None],
  sampling: SamplingSettings,
  kept: Kept | None = None,
) -> tuple[Array, Array]:
  """Prompts (B, P), ending in `<image>` rows columns, → codes (B, h, w) and the prompts' hidden states (B, P, D).

  `bare` (B, P) is what guidance compares them with; `features` are of the images that the user shows in both, if the
  prior reads them; the codes that are `kept` are not drawn. Pure; `params` unstacked.
  """
  (B, P), size = tokens.shape, omni.settings.buckets[0]
  read = tokens, lengths, features[0]
  if sampling.guidance != 1:
    read = jax.tree.map(lambda *both: jnp.concatenate(both), read, (bare, bare_lengths, features[1]))
  prompt, prompt_lengths, prompt_features = read
  written, hidden = prefill(omni, params, prompt, prompt_lengths, size.tokens, prompt_features)
  given = None if kept is None else kept.tokens(omni.vocabulary)
  _, drawn = sample_tokens(
    omni, params, written, P, jnp.arange(size.tokens), keys, sampling, codes_only=True, given_tokens=given
  )
  return (drawn - omni.vocabulary.codes).reshape(B, size.rows, size.columns), hidden[:B]


def render_prompts(
  omni: Omni, params: Params, tokens, lengths, bare, bare_lengths, keys, features, *, sampling: SamplingSettings
) -> Drawing:
  """Prompts → drawing, without a painter; arguments as of `draw_codes`."""
  codes, _ = draw_codes(omni, params, tokens, lengths, bare, bare_lengths, keys, features, sampling)
  return rendered(omni, params, codes)


def render_codes(
  omni: Omni, params: Params, tokens: Array, lengths: Array, codes: Array, keys: Array, *, sampling: SamplingSettings
) -> Drawing:
  """As `render_prompts`, with the codes (B, h, w) given: the prompts then say nothing."""
  return rendered(omni, params, codes)


def rendered(omni: Omni, params: Params, codes: Array) -> Drawing:
  return Drawing(codes, None, jnp.clip(omni.render(params, omni.features(params, codes)), -1, 1))


def reconstruct(omni: Omni, params: Params, images: Array) -> Array:
  """Images (B, H, W, 3) in [-1, 1] → codes → the tokenizer's rendering of them."""
  features = omni.encode(params, omni.shrink(images)).features
  return jnp.clip(omni.render(params, features), -1, 1)


class TokenDrawer(Draws):
  """Draws visual tokens and renders them. Compiles once for each number of prompts and bucket of lengths."""

  plans = True

  def __init__(
    self,
    settings: Settings,
    params: Params,
    text_tokenizer: TextTokenizer,
    draw: Callable = render_prompts,
    repaint: Callable = render_codes,
    spread: Spread | None = None,
  ):
    """`params` as stored (stacked), of all parts that `draw` and `repaint` use; `spread`: the devices, if not the
    first alone."""
    self.omni = Omni(settings, text_tokenizer.size, scan=False, unwritten=text_tokenizer.unwritten)
    self.text_tokenizer, self.spread = text_tokenizer, spread
    self.load(params)
    self._draw = over_rows(functools.partial(draw, self.omni), spread, ("sampling",))
    self._repaint = over_rows(functools.partial(repaint, self.omni), spread, ("sampling",))
    self._reconstruct = over_rows(functools.partial(reconstruct, self.omni), spread)
    self._encode = over_rows(lambda params, images: self.omni.encode(params, self.omni.shrink(images)).codes, spread)

  @property
  def settings(self) -> Settings:
    return self.omni.settings

  @property
  def vocabulary(self) -> Vocabulary:
    return self.omni.vocabulary

  @property
  def patch_size(self) -> int:
    return self.settings.tokenizer.patch_size

  def load(self, params: Params):
    """Draws with other parameters from here on, without compiling again."""
    viewed = jax.jit(self.omni.view)(params)
    self.params = self.spread.place(viewed) if self.spread else viewed

  def encode(self, images: Array) -> Array:
    """Codes (B, h, w) of images (B, H, W, 3), uint8 or float in [-1, 1]."""
    return self._encode(self.params, to_float(images))

  def reconstruct(self, images: Array) -> Array:
    """The tokenizer's rendering of images (B, H, W, 3), uint8 or float in [-1, 1], from their own codes."""
    return self._reconstruct(self.params, to_float(images))

  def __call__(self, prompts: list[str], seed: int = 0, **changes) -> Drawing:
    """Draws each prompt once. `changes` override `settings.sampling`, for example `guidance=2.0`. SettingsError where
    they cannot be."""
    sampling = self.sampling(changes)
    return self._drawn(*self.prompt_tokens(prompts), row_keys(seed, len(prompts)), sampling)

  def each(self, prompts: Sequence[str], seeds: Sequence[int], **changes) -> Drawing:
    return self._drawn(*self.prompt_tokens(prompts), keys_of(seeds), self.sampling(changes))

  def repaint(self, prompts: list[str], codes: Array, seed: int = 0, **changes) -> Drawing:
    """Paints given codes (B, h, w) under the prompts, without the prior's choice of codes."""
    sampling = self.sampling(changes)
    tokens, lengths = self.prompt_tokens(prompts)
    keys = row_keys(seed, len(prompts))
    return self._repaint(self.params, tokens, lengths, codes, keys, sampling=sampling)

  @property
  def _opening(self) -> list[int]:
    size = self.omni.settings.buckets[0]
    return self.omni.vocabulary.opening(size.rows, size.columns)

  def _drawn(
    self,
    tokens: np.ndarray,
    lengths: np.ndarray,
    keys: Array,
    sampling: SamplingSettings,
    shown: Sequence[Sequence[np.ndarray]] = (),
    **more: Kept,
  ) -> Drawing:
    """Prompts as `pad` gives them, with features as of `input_features`, → drawing; `more` as `draw` takes it."""
    prompts, bare = self._beside(tokens, lengths, shown)
    return self._draw(
      self.params, tokens, lengths, bare.tokens, bare.lengths, keys, (prompts.features, bare.features),
      sampling=sampling, **more,
    )  # fmt: skip

  def _beside(
    self, tokens: np.ndarray, lengths: np.ndarray, shown: Sequence[Sequence[np.ndarray]]
  ) -> tuple[Prompts, Prompts]:
    """Prompts, and what guidance compares them with."""
    v = self.omni.vocabulary
    bare = [without_words(row, v) for row in without_padding(tokens, lengths)]
    bare_lengths = np.asarray([len(row) for row in bare], np.int32)
    padded = np.full_like(tokens, v.pad)
    for row, own in zip(padded, bare):
      row[: len(own)] = own
    return (
      Prompts(tokens, lengths, input_features(tokens, shown, v)),
      Prompts(padded, bare_lengths, input_features(padded, shown, v)),
    )
