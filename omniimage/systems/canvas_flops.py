"""FLOPs of the systems that paint the whole canvas; what is counted, and how, says `omniimage.systems.omni_flops`."""

from omniimage.models.diffusion_decoder import TIME_FREQUENCIES
from omniimage.settings import DecoderSettings, PriorSettings, Settings, StageSettings
from omniimage.size import Size
from omniimage.systems.omni_flops import FORWARD, LEARNS, THROUGH, prior_token_flops


def denoising_flops(settings: Settings, stage: StageSettings, size: Size, channels: int, side: int = 1) -> int:
  """An update on one image: its text read, its canvas denoised.

  Args:
    channels: Z, numbers of a place of the canvas.
    side: pixels that a place stands for, along one side.
  """
  d, text = settings.decoder, min(settings.decoder.text_length, settings.data.sequence_length)
  rows, columns = size.patches(d.patch_size)
  numbers = channels * (d.patch_size // side) ** 2
  reads, denoises = text_flops(settings.prior, text), denoiser_flops(d, rows * columns, numbers, text, settings.prior)
  reads *= LEARNS if "text_encoder" in stage.moves else FORWARD
  return reads + denoises * (LEARNS if "denoiser" in stage.moves else THROUGH)


def text_flops(p: PriorSettings, text: int) -> int:
  """A transformer of the prior's layers over a text of so many tokens, every one of which sees all."""
  return text * prior_token_flops(p) + 4 * p.depth * text**2 * p.heads * p.head_width


def denoiser_flops(d: DecoderSettings, patches: int, numbers: int, text: int, p: PriorSettings, more: int = 0) -> int:
  """The denoiser on one canvas of patches of so many numbers, with `more` states in its memory beside text and null."""
  memory, kv_width = text + 1 + more, d.width // d.heads * d.kv_heads
  ends = 2 * d.width * numbers * patches
  conditions = d.width * p.width * text
  time = d.width * (2 * TIME_FREQUENCIES + d.width + 6 * d.width + 2 * d.width)
  on_patches = 4 * d.width**2 + 2 * d.width * kv_width + 3 * d.width * d.mlp_width  # own and cross-attention, MLP
  layer = on_patches * patches + 2 * d.width * kv_width * memory
  pairs = patches**2 + patches * memory
  return 2 * (ends + conditions + time + d.depth * layer) + 4 * d.depth * d.width * pairs
