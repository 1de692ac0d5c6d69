"""From text to a canvas by one diffusion over all of it: of pixels, or of the latents of an autoencoder.

Axes: B images, S text tokens, E text width, H × W pixels, h × w the places of the canvas, Z numbers of a place, N
patches of the canvas, C numbers of a patch.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import Array

from omniimage.models.denoiser import Denoiser
from omniimage.models.diffusion_decoder import Memory
from omniimage.models.execution import Execution, GatherParams, execution_of, stack_layers, view
from omniimage.models.kernels import PLAIN, Kernels
from omniimage.models.layers import patchify, unpatchify
from omniimage.models.quantizers import quantizer_for
from omniimage.models.text_encoder import TextEncoder
from omniimage.models.tokenizer import ImageTokenizer
from omniimage.settings import Settings
from omniimage.vocabulary import Vocabulary

Params = dict


@dataclasses.dataclass(frozen=True)
class PixelDiffusion:
  """A text encoder and a denoiser of pixels. All methods are pure functions of parameters, stored stacked; with
  `scan=False` they take them unstacked, as `view` makes them."""

  settings: Settings
  text_size: int
  scan: bool = True
  kernels: Kernels = PLAIN
  gather_params: GatherParams | None = None

  @functools.cached_property
  def vocabulary(self) -> Vocabulary:
    """Of the sequences in batches; where an image stands, there are placeholders alone."""
    return Vocabulary(self.text_size, image_codes=1)

  @functools.cached_property
  def text_encoder(self) -> TextEncoder:
    return TextEncoder(self.settings.prior, self.text_size, self._execution("text_encoder"))

  @functools.cached_property
  def denoiser(self) -> Denoiser:
    return Denoiser(self.settings.decoder, self.channels * self.patch**2, self._execution("denoiser"))

  @property
  def patch(self) -> int:
    """Places of the canvas along one side of a patch."""
    return self.settings.decoder.patch_size

  @property
  def channels(self) -> int:
    """Z."""
    return 3

  def _execution(self, part: str) -> Execution:
    return execution_of(self.settings, part, self.scan, self.kernels, self.gather_params)

  def init(self, rng: Array) -> Params:
    """Fresh parameters by part, stacked."""
    if self.gather_params is not None or self.kernels != PLAIN:  # neither makes parameters
      return dataclasses.replace(self, gather_params=None, kernels=PLAIN).init(rng)
    return {part: stack_layers(variables["params"]) for part, variables in self._init(rng).items()}

  def _init(self, rng: Array) -> dict:
    first, second = jax.random.split(rng)
    patches, text = jnp.zeros((1, 1, self.denoiser.channels)), jnp.zeros((1, 1, self.settings.prior.width))
    return {
      "text_encoder": self.text_encoder.init(first, jnp.zeros((1, 8), jnp.int32), jnp.ones((1, 8), bool)),
      "denoiser": self.denoiser.init(second, patches, text, method="init_parameters"),
    }

  def view(self, params: Params) -> Params:
    """Stored parameters as the methods of this object take them."""
    return view(params, self.scan, self.gather_params)

  def encode(self, params: Params, images_BHW3: Array) -> Array:
    """Images in [-1, 1] → canvases (B, h, w, Z)."""
    return images_BHW3

  def decode(self, params: Params, canvas_BhwZ: Array) -> Array:
    """Canvases → images (B, H, W, 3)."""
    return canvas_BhwZ

  def read(self, params: Params, tokens_BS: Array, there_BS: Array) -> Array:
    """Text states (B, S, E) of text ids, of which some exist."""
    return self.text_encoder.apply({"params": params["text_encoder"]}, tokens_BS, there_BS)

  def remember(self, params: Params, text_BSE: Array, there_BS: Array, keep_text: Array) -> Memory:
    """What the denoiser attends to; arguments as of `Denoiser.remember`."""
    return self.denoiser.apply({"params": params["denoiser"]}, text_BSE, there_BS, keep_text, method="remember")

  def keep(self, params: Params, memory: Memory) -> tuple:
    """What the layers make of a memory, once for all steps of sampling; `scan=False` alone."""
    return self.denoiser.apply({"params": params["denoiser"]}, memory, method="memory_caches")

  def predict(self, params: Params, patches_BNC: Array, columns: int, t: Array, memory: Memory, kept=None) -> Array:
    """x̂ (B, N, C) of noisy patches; arguments as of `Denoiser`."""
    return self.denoiser.apply({"params": params["denoiser"]}, patches_BNC, columns, t, memory, kept)

  def patchify(self, canvas_BhwZ: Array) -> Array:
    return patchify(canvas_BhwZ, self.patch)

  def unpatchify(self, patches_BNC: Array, columns: int) -> Array:
    return unpatchify(patches_BNC, self.patch, columns)


@dataclasses.dataclass(frozen=True)
class LatentDiffusion(PixelDiffusion):
  """The same over the latents of an autoencoder, `config.tokenizer` with `channels` in place of `levels`."""

  @functools.cached_property
  def autoencoder(self) -> ImageTokenizer:
    s = self.settings.tokenizer
    return ImageTokenizer(s, quantizer_for(s), self._execution("autoencoder"))

  @property
  def patch(self) -> int:
    return self.settings.decoder.patch_size // self.settings.tokenizer.patch_size

  @property
  def channels(self) -> int:
    return self.settings.tokenizer.channels

  def _init(self, rng: Array) -> dict:
    first, rest = jax.random.split(rng)
    side = self.settings.tokenizer.patch_size
    return {"autoencoder": self.autoencoder.init(first, jnp.zeros((1, side, side, 3))), **super()._init(rest)}

  def encode(self, params: Params, images_BHW3: Array) -> Array:
    return self.autoencoder.apply({"params": params["autoencoder"]}, images_BHW3, method="encode").features

  def decode(self, params: Params, canvas_BhwZ: Array) -> Array:
    return self.autoencoder.apply({"params": params["autoencoder"]}, canvas_BhwZ, method="decode")
