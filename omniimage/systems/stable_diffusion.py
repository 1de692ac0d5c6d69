"""Text → latents by one diffusion over the whole canvas, and an autoencoder from latents to pixels.

Latent diffusion (Rombach et al. 2022, arXiv 2112.10752) with a transformer that attends to the text, as PixArt-α (Chen
et al. 2023, 2310.00426), and the straight path and logit-normal times of Stable Diffusion 3 (Esser et al. 2024,
2403.03206). Three things are other than there. The text encoder, bidirectional, is trained with the denoiser, from
nothing. Latents are standardized by what they are (`omniimage.models.quantizers.latents`); light noise on those that
the autoencoder's decoder reads takes the place of a small Kullback-Leibler term, so that near latents are near
pictures, as in the σ-VAE of LatentLM (Sun et al. 2024, 2412.08635). The denoiser predicts clean latents, as our painter
does clean pixels.
"""

import functools
from collections.abc import Collection, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from omniimage.data.batches import Batch
from omniimage.models.canvas import LatentDiffusion
from omniimage.models.lpips import Lpips
from omniimage.sampling.canvas import CanvasDrawer
from omniimage.settings import AutoencoderSettings, StageSettings, divides, require
from omniimage.size import Size
from omniimage.streams import Stream
from omniimage.systems.canvas import CanvasSystem, Rows
from omniimage.systems.canvas_flops import denoising_flops
from omniimage.systems.omni import TOKENIZER_RULES
from omniimage.systems.omni_flops import FORWARD, LEARNS, tokenizer_flops
from omniimage.systems.perceptual import distances
from omniimage.systems.system import Part, Totals


class LatentRows(Rows):
  @functools.cached_property
  def rendered_FHW3(self) -> Array:
    """The autoencoder's rendering of latents with some noise, σ uniform for each image."""
    sigma = self.draw(Stream.LATENT_SIGMA, jax.random.uniform) * self.model.settings.tokenizer.noise
    noise = self.draw(Stream.LATENT_NOISE, jax.random.normal, *self.canvas_FhwZ.shape[1:])
    return self.model.decode(self.params, self.canvas_FhwZ + sigma[:, None, None, None] * noise)


class StableDiffusionSystem(CanvasSystem):
  model_class = LatentDiffusion
  parts: ClassVar = {"autoencoder": Part(TOKENIZER_RULES, ("pixel",)), **CanvasSystem.parts}
  rows_class = LatentRows
  terms = ("pixel", "pixel_lpips", "diffusion")
  identity = ("tokenizer", *CanvasSystem.identity)

  def sums(self, batch: Batch) -> Totals:
    images = jnp.sum(batch["image_mask"])
    return {**super().sums(batch), "pixel": images, "pixel_lpips": images}

  def term(self, name: str, rows: LatentRows) -> Array:
    if name == "diffusion":
      return super().term(name, rows)
    error = pixel_error(rows) if name == "pixel" else rendered_distance(rows, self.lpips)
    return jnp.sum(error * rows.batch["image_mask"])

  def step_flops(self, stage: StageSettings, size: Size) -> float:
    s, pays = self.settings, LEARNS if "autoencoder" in stage.moves else FORWARD
    flops = tokenizer_flops(s, s.tokenizer.encoder_depth, size) * pays
    if stage.weight("pixel"):
      flops += tokenizer_flops(s, s.tokenizer.decoder_depth, size) * pays
    if stage.weight("diffusion"):
      flops += denoising_flops(s, stage, size, s.tokenizer.channels, s.tokenizer.patch_size)
    return float(stage.rows * s.data.images_per_row * flops + self.perceptual_flops(stage, size))

  def columns(
    self, generator: CanvasDrawer, trained: Collection[str], prompts: Sequence[str], images: np.ndarray, seed: int
  ) -> dict[str, Array]:
    """The autoencoder's reconstruction, and what is painted."""
    columns = {"reconstruction": generator.reconstruct(images)} if "autoencoder" in trained else {}
    return {**columns, **super().columns(generator, trained, prompts, images, seed)}

  def check(self, stage: str):
    super().check(stage)
    s = self.settings
    require(
      isinstance(s.tokenizer, AutoencoderSettings),
      "config.tokenizer has levels, which make codes, and stable_diffusion learns latents: give channels and noise in "
      "their place",
    )
    divides(s.tokenizer.patch_size, s.decoder.patch_size, "tokenizer.patch_size", "decoder.patch_size")
    require(
      s.tokenizer.patch_size == s.decoder.pixels_per_token,
      f"decoder.pixels_per_token={s.decoder.pixels_per_token} pixels for a latent, which stands for "
      f"tokenizer.patch_size={s.tokenizer.patch_size}: make them equal",
    )


def pixel_error(rows: LatentRows) -> Array:
  """Mean squared error (B, I) of the rendering."""
  return jnp.mean(jnp.square(rows.rendered_FHW3 - rows.images_FHW3), axis=(1, 2, 3)).reshape(-1, rows.slots)


def rendered_distance(rows: LatentRows, lpips: Lpips) -> Array:
  """LPIPS (B, I) of the rendering."""
  return distances(lpips, rows.rendered_FHW3, rows.images_FHW3).reshape(-1, rows.slots)
