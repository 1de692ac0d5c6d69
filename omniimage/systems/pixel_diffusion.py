"""Text → pixels by one diffusion over the whole canvas, without latents.

Imagen (Saharia et al. 2022, arXiv 2205.11487) reads a text encoder, here trained with the denoiser and not before; JiT
(Li & He 2025, 2511.13720) predicts clean patches of pixels with a plain transformer. No cascade: these pictures are
small.
"""

from omniimage.settings import StageSettings
from omniimage.size import Size
from omniimage.systems.canvas import CanvasSystem
from omniimage.systems.canvas_flops import denoising_flops


class PixelDiffusionSystem(CanvasSystem):
  terms = ("diffusion", "diffusion_lpips")

  def step_flops(self, stage: StageSettings, size: Size) -> float:
    flops = stage.rows * self.settings.data.images_per_row * denoising_flops(self.settings, stage, size, 3)
    return float(flops + self.perceptual_flops(stage, size))
