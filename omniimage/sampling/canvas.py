"""Drawing by one diffusion over the whole canvas: from noise step by step, guided by the text.

Axes: B prompts, K guidance branches, S text tokens, H × W pixels, h × w the places of the canvas, Z numbers of a place,
N patches of the canvas, C numbers of a patch.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from omniimage.data.text import TextTokenizer
from omniimage.distributed.spread import Spread
from omniimage.models.canvas import LatentDiffusion, Params, PixelDiffusion
from omniimage.models.diffusion_decoder import Memory
from omniimage.sampling.drawing import Drawing, Draws, keys_of, row_keys
from omniimage.sampling.guidance import asked_for, coefficients_at, guided, kept_by, repeated
from omniimage.sampling.kernels import over_rows
from omniimage.sampling.prompts import pad, read_prompt, to_float
from omniimage.sampling.solvers import walk
from omniimage.settings import SamplingSettings, Settings
from omniimage.size import Size
from omniimage.streams import Stream, fold
from omniimage.vocabulary import Vocabulary


def denoise(predict: Callable[[Array, Array], Array], noise: Array, sampling: SamplingSettings) -> Array:
  """From noise at t = 0 to the clean end of the path; `predict` gives x̂ of x_t and t, a scalar."""
  steps, solver, shift = sampling.diffusion_steps, sampling.solver, sampling.time_shift
  return walk(lambda x, t, carried: (predict(x, t), carried), noise, steps, solver, shift)[0]


def text_branches(guidance: float, sampling: SamplingSettings) -> list[tuple[bool, float]]:
  """(keep text, coefficient) of each forward pass: x̂(∅) + guidance·(x̂(text) − x̂(∅)) (Ho & Salimans 2022)."""
  return asked_for([(True, guidance), (False, 1 - guidance)], sampling)


def noise_of(keys: Array, *shape: int, stream: Stream = Stream.CHUNKS) -> Array:
  """(B, *shape), each row from its own key."""
  return jax.vmap(lambda key: jax.random.normal(fold(key, stream, 0), shape, jnp.float32))(keys)


def draw_canvas(
  model: PixelDiffusion,
  params: Params,
  tokens_BS: Array,
  there_BS: Array,
  keys: Array,
  *,
  size: Size,
  sampling: SamplingSettings,
) -> Drawing:
  """Texts → drawing, its canvas as the plan if that is not pixels. Pure; `params` unstacked."""
  B, passes = len(keys), text_branches(sampling.text_guidance, sampling)
  text, there = repeated(len(passes), model.read(params, tokens_BS, there_BS), there_BS)
  memory = model.remember(params, text, there, kept_by(passes, B))
  return painted(model, params, memory, passes, keys, size, sampling)


def painted(
  model: PixelDiffusion,
  params: Params,
  memory: Memory,
  passes: Sequence[tuple[bool, float]],
  keys: Array,
  size: Size,
  sampling: SamplingSettings,
) -> Drawing:
  """The drawing of what is remembered, K·B rows of it, one branch after the other."""
  kept = model.keep(params, memory)
  rows, columns = size.patches(model.settings.decoder.patch_size)

  def predict(x_BNC, t):
    (noisy,) = repeated(len(passes), x_BNC)
    predicted = model.predict(params, noisy, columns, jnp.full((len(noisy),), t), memory, kept)
    return guided(coefficients_at(t, passes, sampling), predicted)

  patches = denoise(predict, noise_of(keys, rows * columns, model.denoiser.channels), sampling)
  return finished(model, params, model.unpatchify(patches, columns))


def finished(model: PixelDiffusion, params: Params, canvas_BhwZ: Array) -> Drawing:
  """The drawing that a canvas is."""
  images = jnp.clip(model.decode(params, canvas_BhwZ), -1, 1)
  return Drawing(canvas_BhwZ if isinstance(model, LatentDiffusion) else None, None, images)


def text_tokens(
  prompts: Sequence[str], settings: Settings, text_tokenizer: TextTokenizer, vocabulary: Vocabulary
) -> tuple[np.ndarray, np.ndarray]:
  """What is read of prompts, the last `decoder.text_length` tokens of each: ids (B, S), at the end of the window as in
  training, and which of them exist. UserError where a prompt is empty or too long."""
  read = [read_prompt(prompt, settings, text_tokenizer)[-settings.decoder.text_length :] for prompt in prompts]
  tokens, lengths = pad(read, vocabulary)
  spare = tokens.shape[1] - lengths
  moved = np.stack([np.roll(row, places) for row, places in zip(tokens, spare)])
  return moved, np.arange(tokens.shape[1]) >= spare[:, None]


class CanvasDrawer(Draws):
  """Draws prompts by a diffusion over the whole canvas. Compiles once for each number of prompts and bucket of
  lengths."""

  draw_canvas = staticmethod(draw_canvas)

  def __init__(
    self, model: PixelDiffusion, params: Params, text_tokenizer: TextTokenizer, spread: Spread | None = None
  ):
    """`params` as stored (stacked); of `model` the layers are not scanned; `spread`: the devices, if not the first
    alone."""
    self.spread = spread
    self.model, self.settings, self.text_tokenizer = model, model.settings, text_tokenizer
    self.vocabulary, self.plans = model.vocabulary, isinstance(model, LatentDiffusion)
    self.load(params)
    draw = functools.partial(self.draw_canvas, model, size=self.settings.buckets[0])
    self._draw = over_rows(draw, spread, ("sampling",))
    self._encode = over_rows(model.encode, spread)
    self._finish = over_rows(functools.partial(finished, model), spread)

  @property
  def patch_size(self) -> int:
    part = self.settings.tokenizer if self.plans else self.settings.decoder  # the autoencoder renders latents
    return part.patch_size

  def load(self, params: Params):
    viewed = jax.jit(self.model.view)(params)
    self.params = self.spread.place(viewed) if self.spread else viewed

  def __call__(self, prompts: list[str], seed: int = 0, **changes) -> Drawing:
    return self._drawn(prompts, row_keys(seed, len(prompts)), changes)

  def each(self, prompts: Sequence[str], seeds: Sequence[int], **changes) -> Drawing:
    return self._drawn(prompts, keys_of(seeds), changes)

  def places(self, prompt: str) -> int:
    return self._texts([prompt])[0].shape[1]

  def _drawn(self, prompts: Sequence[str], keys: Array, changes: dict[str, Any]) -> Drawing:
    sampling = self.sampling(changes)
    return self._draw(self.params, *self._texts(prompts), keys, sampling=sampling)

  def _texts(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    return text_tokens(prompts, self.settings, self.text_tokenizer, self.vocabulary)

  def encode(self, images: Array) -> Array:
    """Latents (B, h, w, Z) of images (B, H, W, 3), uint8 or float in [-1, 1]."""
    return self._encode(self.params, to_float(images))

  def repaint(self, prompts: list[str], codes: Array, seed: int = 0, **changes) -> Drawing:
    """Latents, decoded: the prompts then say nothing."""
    return self._finish(self.params, codes)

  def reconstruct(self, images: Array) -> Array:
    """Images through the autoencoder and back."""
    return self.repaint([], self.encode(images)).images
