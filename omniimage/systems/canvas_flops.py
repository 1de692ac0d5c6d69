"""FLOPs of the systems that paint the whole canvas; what is counted, and how, says `omniimage.systems.omni_flops`."""

import dataclasses

from omniimage.models.diffusion_decoder import TIME_FREQUENCIES
from omniimage.models.unclip import STATES
from omniimage.settings import DecoderSettings, PriorSettings, Settings, StageSettings
from omniimage.size import Size
from omniimage.systems.omni_flops import FORWARD, LEARNS, THROUGH, kv_width, on_patch, prior_token_flops, trunk_flops


def denoising_flops(settings: Settings, stage: StageSettings, size: Size, channels: int, side: int = 1) -> int:
  """An update on one image: its text read, its canvas denoised.

  Args:
    channels: Z, numbers of a place of the canvas.
    side: pixels that a place stands for, along one side.
  """
  d, text = settings.decoder, text_tokens(settings)
  rows, columns = size.patches(d.patch_size)
  numbers = channels * (d.patch_size // side) ** 2
  reads, denoises = text_flops(settings.prior, text), denoiser_flops(d, rows * columns, numbers, text, settings.prior)
  reads *= LEARNS if "text_encoder" in stage.moves else FORWARD
  return reads + denoises * (LEARNS if "denoiser" in stage.moves else THROUGH)


def unclip_flops(settings: Settings, stage: StageSettings, size: Size) -> int:
  """An update of unCLIP's prior and decoder on one image: embedded, its text read, embedding and canvas denoised."""
  s, d, text = settings, settings.decoder, text_tokens(settings)
  rows, columns = size.patches(d.patch_size)
  prior = dataclasses.replace(d, depth=s.tokenizer.prior_depth)
  numbers = 3 * d.patch_size**2
  flops = 0
  if stage.weight("embedding"):
    flops += _text_embedding_flops(s, text) * FORWARD
    flops += _conditioned_flops(prior, 1, s.tokenizer.embedding, text, s) * LEARNS
  if stage.weight("diffusion"):
    flops += _conditioned_flops(d, rows * columns, numbers, text, s) * LEARNS
  reads = text_flops(s.prior, text) * (LEARNS if "text_encoder" in stage.moves else FORWARD)
  return flops + _image_embedding_flops(s, size) * FORWARD + reads


def embedder_flops(settings: Settings, size: Size) -> int:
  """An image and its text, embedded."""
  return _image_embedding_flops(settings, size) + _text_embedding_flops(settings, text_tokens(settings))


def _image_embedding_flops(s: Settings, size: Size) -> int:
  rows, columns = size.patches(s.tokenizer.patch_size)
  return trunk_flops(s.tokenizer, s.tokenizer.encoder_depth, rows * columns, s.tokenizer.embedding)


def _text_embedding_flops(s: Settings, text: int) -> int:
  own = dataclasses.replace(s.prior, depth=s.tokenizer.encoder_depth)
  return text_flops(own, text) + 2 * s.prior.width * s.tokenizer.embedding


def _conditioned_flops(d: DecoderSettings, patches: int, numbers: int, text: int, s: Settings) -> int:
  """A denoiser that is given an embedding, too."""
  return denoiser_flops(d, patches, numbers, text, s.prior, STATES) + 2 * s.tokenizer.embedding * STATES * d.width


def text_tokens(settings: Settings) -> int:
  """That are read before an image: no more than a row has."""
  return min(settings.decoder.text_length, settings.data.sequence_length)


def text_flops(p: PriorSettings, text: int) -> int:
  """A transformer of the prior's layers over a text of so many tokens, every one of which sees all."""
  return text * prior_token_flops(p) + 4 * p.depth * text**2 * p.heads * p.head_width


def denoiser_flops(d: DecoderSettings, patches: int, numbers: int, text: int, p: PriorSettings, more: int = 0) -> int:
  """The denoiser on one canvas of patches of so many numbers, with `more` states in its memory beside text and null."""
  memory = text + 1 + more
  ends = 2 * d.width * numbers * patches
  conditions = d.width * p.width * text
  time = d.width * (2 * TIME_FREQUENCIES + d.width + 6 * d.width + 2 * d.width)
  layer = on_patch(d) * patches + 2 * d.width * kv_width(d) * memory
  pairs = patches**2 + patches * memory
  return 2 * (ends + conditions + time + d.depth * layer) + 4 * d.depth * d.width * pairs
